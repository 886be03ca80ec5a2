"""How all plots look: colours, markers, sizes of figures and texts, titles, axes, and labels that hide nothing."""

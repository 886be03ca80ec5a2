"""The colours of all plots."""

BLUE, ORANGE, GREEN, RED, GREY = "#2f6db3", "#d9822b", "#2e8b57", "#b8352f", "#6b6b6b"

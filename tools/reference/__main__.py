"""Write the files of docs/reference/ that are generated from the code, and print which of them changed.

python -m tools.reference
"""

from tools.reference.pages import FILES, write

if __name__ == "__main__":
    changed = write()
    print("\n".join(map(str, changed)) or f"all {len(FILES)} files are as the code has them")

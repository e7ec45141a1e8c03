"""`python -m mastra_storage_convex` is the command `mastra-storage-convex`."""

from mastra_storage_convex.cli import main

if __name__ == "__main__":
    main()

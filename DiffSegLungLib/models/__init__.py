"""The store of models and the files of each; may import what stands before it, from the base to export."""

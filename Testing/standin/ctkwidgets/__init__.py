"""The stand-ins for the widgets of CTK; the module `ctk` puts them together."""

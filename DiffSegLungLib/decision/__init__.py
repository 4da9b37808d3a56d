"""From descriptors to named tissues; may import base, io, lungs, parenchyma and representation."""

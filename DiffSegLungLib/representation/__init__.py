"""What the diffusion U-Net knows of each voxel; imports base, io, lungs and parenchyma alone."""

//! Pixels to patch rows: the convolution with kernel = stride = patch is a product over these rows.

/// The cut of a picture into patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchGrid {
    /// Height of the picture in pixels.
    pub height: usize,
    /// Width of the picture in pixels.
    pub width: usize,
    /// Side of a patch.
    pub patch: usize,
}

impl PatchGrid {
    /// Rows of patches; pixels beyond the last whole patch are ignored, as a VALID convolution does.
    pub fn rows(&self) -> usize {
        self.height / self.patch
    }

    /// Columns of patches.
    pub fn columns(&self) -> usize {
        self.width / self.patch
    }

    /// Patches of a picture.
    pub fn patches(&self) -> usize {
        self.rows() * self.columns()
    }

    /// Values of a patch, 3 P².
    pub fn patch_length(&self) -> usize {
        3 * self.patch * self.patch
    }
}

/// Copies patch `index` (row-major over the grid) of planar pixels [3, height, width] into `row`: [3, P, P] flattened,
/// the order of a convolution weight [D, 3, P, P].
pub fn patch_row(grid: PatchGrid, pixels: &[f32], index: usize, row: &mut [f32]) {
    let (y0, x0) = (index / grid.columns() * grid.patch, index % grid.columns() * grid.patch);
    for (line, target) in row.chunks_exact_mut(grid.patch).enumerate() {
        let (channel, y) = (line / grid.patch, y0 + line % grid.patch);
        let from = (channel * grid.height + y) * grid.width + x0;
        target.copy_from_slice(&pixels[from..from + grid.patch]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_the_convolution_and_drop_the_rest() {
        let grid = PatchGrid { height: 5, width: 7, patch: 2 };
        assert_eq!((grid.rows(), grid.columns(), grid.patch_length()), (2, 3, 12));
        let pixels: Vec<f32> = (0..3 * 35).map(|i| i as f32).collect();
        let mut row = [0.0; 12];
        patch_row(grid, &pixels, 4, &mut row);
        // Patch 4 starts at y 2, x 2.
        assert_eq!(row, [16., 17., 23., 24., 51., 52., 58., 59., 86., 87., 93., 94.]);
    }
}

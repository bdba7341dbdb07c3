//! Position tables: OpenVision's sine-cosine table for any grid, and resampling of trained ones as the peers do it.

/// OpenVision's table for a grid, [1 + rows × columns, width], class row first and zero.
///
/// With ω_i = 10000^(-i/(w/4 - 1)), the token at row y, column x holds [sin xω, cos xω, sin yω, cos yω], each w/4 long
/// (`posemb_sincos_2d` in OpenVision's `src/models/vit.py`; MoCo v3). Computed in f64, rounded once.
pub fn sin_cos_2d((rows, columns): (usize, usize), width: usize) -> Vec<f32> {
    let quarter = width / 4;
    let omega: Vec<f64> = (0..quarter).map(|i| 10_000f64.powf(-(i as f64) / (quarter as f64 - 1.0))).collect();
    let mut table = vec![0.0; width];
    table.reserve(rows * columns * width);
    for y in 0..rows {
        for x in 0..columns {
            table.extend(omega.iter().map(|o| (x as f64 * o).sin() as f32));
            table.extend(omega.iter().map(|o| (x as f64 * o).cos() as f32));
            table.extend(omega.iter().map(|o| (y as f64 * o).sin() as f32));
            table.extend(omega.iter().map(|o| (y as f64 * o).cos() as f32));
        }
    }
    table
}

/// Weights of one output position over the inputs that it sees.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

/// Antialiased bicubic weights (a = -1/2, support 2 max(scale, 1), normalised), as torch's `antialias=True`.
fn bicubic_taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let filter = |x: f64| {
        let x = x.abs();
        if x < 1.0 {
            (1.5 * x - 2.5) * x * x + 1.0
        } else if x < 2.0 {
            -0.5 * (((x - 5.0) * x + 8.0) * x - 4.0)
        } else {
            0.0
        }
    };
    (0..to)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let first = (center - 2.0 * stretch + 0.5).max(0.0) as usize;
            let end = ((center + 2.0 * stretch + 0.5) as usize).min(from);
            let mut weights: Vec<f64> = (first..end).map(|j| filter((j as f64 - center + 0.5) / stretch)).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
            Taps { first, weights }
        })
        .collect()
}

/// Resamples a trained table [leading + g², width] to another grid, leading rows (a class token) kept: open_clip's
/// `resize_pos_embed`.
///
/// Returns nothing where the table is not that of a square grid with as many leading rows.
pub fn resample_image(
    table: &[f32],
    (leading, width): (usize, usize),
    (rows, columns): (usize, usize),
) -> Option<Vec<f32>> {
    let stored = (table.len() / width).checked_sub(leading)?;
    let side = stored.isqrt();
    if side * side != stored || side == 0 {
        return None;
    }
    if (rows, columns) == (side, side) {
        return Some(table.to_vec());
    }
    let (across, down) = (bicubic_taps(side, columns), bicubic_taps(side, rows));
    let at = |y: usize, x: usize| &table[(leading + y * side + x) * width..][..width];
    let mut wide = vec![0.0f64; side * columns * width];
    for (i, target) in wide.chunks_exact_mut(width).enumerate() {
        let (y, taps) = (i / columns, &across[i % columns]);
        for (j, weight) in taps.weights.iter().enumerate() {
            for (sum, &value) in target.iter_mut().zip(at(y, taps.first + j)) {
                *sum += weight * f64::from(value);
            }
        }
    }
    let mut out = table[..leading * width].to_vec();
    let mut line = vec![0.0f64; width];
    for taps in &down {
        for x in 0..columns {
            line.fill(0.0);
            for (j, weight) in taps.weights.iter().enumerate() {
                let source = &wide[((taps.first + j) * columns + x) * width..][..width];
                for (sum, value) in line.iter_mut().zip(source) {
                    *sum += weight * value;
                }
            }
            out.extend(line.iter().map(|&v| v as f32));
        }
    }
    Some(out)
}

/// Whether a stored table is OpenVision's for this grid: the evidence by which the family is recognised.
///
/// Published tables were computed in f32 by JAX, so they differ by rounding of arguments up to 47 (about 1e-5).
pub fn is_sin_cos_2d(table: &[f32], grid: (usize, usize), width: usize) -> bool {
    if width < 8 || !width.is_multiple_of(4) || table.len() != (grid.0 * grid.1 + 1) * width {
        return false;
    }
    table.iter().zip(sin_cos_2d(grid, width)).all(|(a, b)| (a - b).abs() < 1e-4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spot_values_of_the_reference() {
        let table = sin_cos_2d((14, 14), 192);
        let row = |y: usize, x: usize| &table[(1 + y * 14 + x) * 192..][..192];
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} {b}");
        assert!(table[..192].iter().all(|&v| v == 0.0));
        for (i, want) in [(0, 0.841471), (1, 0.732537), (47, 0.0001), (48, 0.540302), (49, 0.680727), (95, 1.0)] {
            near(row(0, 1)[i], want);
        }
        for (i, want) in [(0, 0.420167), (1, -0.952627), (47, 0.0013), (48, 0.907447), (49, -0.304142)] {
            near(row(13, 13)[i], want);
        }
        let squares: f64 = table.iter().map(|&v| f64::from(v).powi(2)).sum();
        assert!((squares - 18_816.0).abs() < 1e-2, "{squares}");
        assert!(is_sin_cos_2d(&table, (14, 14), 192));
        assert!(!is_sin_cos_2d(&table, (14, 13), 192));
    }

    #[test]
    fn resampling_keeps_a_constant_and_the_class_row() {
        let mut table = vec![9.0; 2];
        table.extend(std::iter::repeat_n([2.0, -1.0], 16).flatten());
        let out = resample_image(&table, (1, 2), (3, 7)).unwrap();
        assert_eq!(out.len(), 2 * (1 + 21));
        assert_eq!(&out[..2], &[9.0, 9.0]);
        assert!(out[2..].chunks(2).all(|row| (row[0] - 2.0).abs() < 1e-6 && (row[1] + 1.0).abs() < 1e-6));
        assert!(resample_image(&table[..22], (1, 2), (3, 3)).is_none());
    }
}

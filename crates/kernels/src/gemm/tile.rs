//! The micro-kernel: a tile of C in registers, written once and compiled for each set and tile height.

use crate::act::{self, Activation};
use crate::isa::{Kernel, LANES, Simd};

/// What is done to a tile between its last multiply-add and its store: + bias, + C, activation, × row scale.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue {
    /// One value a column, readable to the end of the panel; null for none.
    pub(crate) bias: *const f32,
    /// Add what C holds.
    pub(crate) accumulate: bool,
    pub(crate) activation: Activation,
    /// One factor a row; null for none.
    pub(crate) row_scale: *const f32,
}

impl Epilogue {
    /// Stores the product as it is.
    pub(crate) const PLAIN: Epilogue = Epilogue {
        bias: std::ptr::null(),
        accumulate: false,
        activation: Activation::None,
        row_scale: std::ptr::null(),
    };
}

/// The part of the next panel that a tile asks the cache for while it computes.
#[derive(Clone, Copy)]
pub(crate) struct Prefetch {
    start: *const f32,
    /// Cache lines for each eight steps of k.
    lines: usize,
}

impl Prefetch {
    pub(crate) const NONE: Prefetch = Prefetch { start: std::ptr::null(), lines: 0 };

    /// Panels follow one another in memory: tile `i` of `tiles` asks for slice `i` of what comes after `panel`.
    /// The last panel of a matrix runs past its end, which a prefetch may.
    #[inline(always)]
    pub(crate) fn share(panel: &[f32], k: usize, i: usize, tiles: usize) -> Prefetch {
        Self::of_next(panel.as_ptr().wrapping_add(panel.len()), panel.len(), k, i, tiles)
    }

    /// Tile `i` of `tiles` asks for its share of `length` values from `start` on, while it takes `k` steps.
    #[inline(always)]
    pub(crate) fn of_next(start: *const f32, length: usize, k: usize, i: usize, tiles: usize) -> Prefetch {
        let share = (length / LANES).div_ceil(tiles);
        Prefetch { start: start.wrapping_add(i * share * LANES), lines: share.div_ceil((k / 8).max(1)).min(8) }
    }
}

/// Sums of the next pair of panels that a tile makes while it computes: additions and stores have units of their own, or
/// at least the time that waits for nothing else.
#[derive(Clone, Copy)]
pub(crate) struct PanelSums {
    /// B11, followed by B21 after a quarter.
    pub(crate) left: *const f32,
    /// B12, followed by B22.
    pub(crate) right: *const f32,
    /// T1 to T4, a quarter each.
    pub(crate) out: *mut f32,
    /// Values of a quarter.
    pub(crate) quarter: usize,
    /// Vectors of each quarter to do in all, and for each eight steps of k. A tile does none where a set has no registers to
    /// spare.
    pub(crate) vectors: usize,
    pub(crate) at_once: usize,
}

impl PanelSums {
    pub(crate) const NONE: PanelSums = PanelSums {
        left: std::ptr::null(),
        right: std::ptr::null(),
        out: std::ptr::null_mut(),
        quarter: 0,
        vectors: 0,
        at_once: 0,
    };

    /// The vectors from number `start` on, at most `most`, in `steps` steps of k.
    #[inline(always)]
    pub(crate) fn share(self, start: usize, most: usize, steps: usize) -> PanelSums {
        let all = self.quarter / LANES;
        let (start, end) = (start.min(all), (start + most).min(all));
        PanelSums {
            left: self.left.wrapping_add(start * LANES),
            right: self.right.wrapping_add(start * LANES),
            out: self.out.wrapping_add(start * LANES),
            vectors: end - start,
            at_once: (end - start).div_ceil((steps / 8).max(1)),
            ..self
        }
    }

    /// T1 = B12 - B11, T2 = B22 - T1, T3 = B22 - B12, T4 = B21 - T2 for `count` vectors.
    ///
    /// # Safety
    /// `left` and `right` are readable and `out` is writable for `count` vectors in each of their quarters.
    #[inline(always)]
    pub(crate) unsafe fn advance<S: Simd>(&mut self, s: S, count: usize) {
        for _ in 0..count.min(self.vectors) {
            // SAFETY: as the caller vouches.
            unsafe {
                let (b11, b21) = (s.load(self.left), s.load(self.left.add(self.quarter)));
                let (b12, b22) = (s.load(self.right), s.load(self.right.add(self.quarter)));
                let first = s.sub(b12, b11);
                let second = s.sub(b22, first);
                s.store(self.out, first);
                s.store(self.out.add(self.quarter), second);
                s.store(self.out.add(2 * self.quarter), s.sub(b22, b12));
                s.store(self.out.add(3 * self.quarter), s.sub(b21, second));
            }
            self.left = self.left.wrapping_add(LANES);
            self.right = self.right.wrapping_add(LANES);
            self.out = self.out.wrapping_add(LANES);
            self.vectors -= 1;
        }
    }
}

/// One tile: C[rows, columns] = epilogue(A[rows, k] · B[k, panel]).
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) a: *const f32,
    pub(crate) a_stride: usize,
    /// A packed panel, [k][vectors × 16].
    pub(crate) b: *const f32,
    pub(crate) k: usize,
    /// Sums to go on from, [rows][vectors × 16]; null for zeros.
    pub(crate) start: *const f32,
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    /// Columns of C that exist; the panel may be wider.
    pub(crate) columns: usize,
    pub(crate) epilogue: Epilogue,
    pub(crate) prefetch: Prefetch,
    pub(crate) sums: PanelSums,
}

impl Tile {
    /// A place to store, for values that another kernel made.
    pub(crate) fn target(c: *mut f32, c_stride: usize, columns: usize, epilogue: Epilogue) -> Tile {
        let (a, b) = (std::ptr::null(), std::ptr::null());
        Tile {
            a,
            a_stride: 0,
            b,
            k: 0,
            start: std::ptr::null(),
            c,
            c_stride,
            columns,
            epilogue,
            prefetch: Prefetch::NONE,
            sums: PanelSums::NONE,
        }
    }
}

/// A tile of `R` rows and `V` vectors. Made only by [`run_tile`], whose contract covers the raw reads and writes.
pub(crate) struct TileKernel<const R: usize, const V: usize>(Tile);

impl<const R: usize, const V: usize> TileKernel<R, V> {
    /// # Safety
    /// `tile.a` has R readable rows of k values, `tile.b` k × V × 16 values, `tile.c` R writable rows of `columns`
    /// values that nothing else accesses meanwhile; start, bias and row scale, where not null, R × V × 16, V × 16 and R
    /// values; `tile.sums` what [`PanelSums::advance`] asks for all its vectors.
    #[inline(always)]
    pub(crate) unsafe fn new(tile: Tile) -> Self {
        Self(tile)
    }
}

impl<const R: usize, const V: usize> Kernel for TileKernel<R, V> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = self.0;
        let mut sums = [[s.splat(0.0); V]; R];
        if !t.start.is_null() {
            for r in 0..R {
                for v in 0..V {
                    // SAFETY: the contract of `new`: R × V × 16 values.
                    sums[r][v] = unsafe { s.load(t.start.add((r * V + v) * LANES)) };
                }
            }
        }
        let (mut a, mut b, mut ahead) = (t.a, t.b, t.prefetch.start);
        let mut panel_sums = t.sums;
        // SAFETY: the contract of `new`: R rows of k values at `a`, k × V × 16 values at `b`; prefetches are unbounded.
        unsafe {
            for _ in 0..t.k / 8 {
                for _ in 0..t.prefetch.lines {
                    s.prefetch(ahead);
                    ahead = ahead.wrapping_add(LANES);
                }
                if S::SPARE_REGISTERS {
                    panel_sums.advance(s, t.sums.at_once);
                }
                for step in 0..8 {
                    multiply_add::<S, R, V>(s, a.add(step), t.a_stride, b.add(step * V * LANES), &mut sums);
                }
                a = a.add(8);
                b = b.add(8 * V * LANES);
            }
            if S::SPARE_REGISTERS {
                panel_sums.advance(s, panel_sums.vectors);
            }
            for step in 0..t.k % 8 {
                multiply_add::<S, R, V>(s, a.add(step), t.a_stride, b.add(step * V * LANES), &mut sums);
            }
        }
        // SAFETY: the contract of `new` covers C, bias and row scale.
        unsafe { store_tile(s, &t, &sums) };
    }
}

/// Applies the epilogue to a tile and stores it.
///
/// # Safety
/// The contract of [`TileKernel::new`] for C, bias and row scale.
#[inline(always)]
pub(crate) unsafe fn store_tile<S: Simd, const R: usize, const V: usize>(s: S, t: &Tile, sums: &[[S::F; V]; R]) {
    let e = &t.epilogue;
    let whole = t.columns >= V * LANES && e.row_scale.is_null() && matches!(e.activation, Activation::None);
    // SAFETY: as the caller vouches; the tile is whole where `store_whole` is called.
    unsafe {
        match (whole, e.bias.is_null(), e.accumulate) {
            (true, false, false) => store_whole::<S, R, V, true, false>(s, t, sums),
            (true, false, true) => store_whole::<S, R, V, true, true>(s, t, sums),
            (true, true, false) => store_whole::<S, R, V, false, false>(s, t, sums),
            (true, true, true) => store_whole::<S, R, V, false, true>(s, t, sums),
            (false, ..) => finish_all(s, t, sums),
        }
    }
}

/// Stores a tile that needs no more than a bias and the old C, straight from the registers: the loops unroll.
///
/// # Safety
/// The contract of [`TileKernel::new`]; all V × 16 columns exist, and the bias is there if `BIAS`.
#[inline(always)]
unsafe fn store_whole<S: Simd, const R: usize, const V: usize, const BIAS: bool, const ADD: bool>(
    s: S,
    t: &Tile,
    sums: &[[S::F; V]; R],
) {
    // SAFETY: as the caller vouches.
    unsafe {
        for r in 0..R {
            for v in 0..V {
                let c = t.c.add(r * t.c_stride + v * LANES);
                let mut y = sums[r][v];
                if BIAS {
                    y = s.add(y, s.load(t.epilogue.bias.add(v * LANES)));
                }
                if ADD {
                    y = s.add(y, s.load(c));
                }
                s.store(c, y);
            }
        }
    }
}

/// Applies any epilogue to a tile of any width. The sums go through memory: a loop over registers would keep them in
/// memory from the start.
///
/// # Safety
/// The contract of [`TileKernel::new`].
#[inline(always)]
unsafe fn finish_all<S: Simd, const R: usize, const V: usize>(s: S, t: &Tile, sums: &[[S::F; V]; R]) {
    let mut spilled = [const { std::mem::MaybeUninit::<[f32; LANES]>::uninit() }; MOST_VECTORS];
    const { assert!(R * V <= MOST_VECTORS) };
    for r in 0..R {
        for v in 0..V {
            // SAFETY: an element of the array has room for sixteen floats.
            unsafe { s.store(spilled[r * V + v].as_mut_ptr().cast(), sums[r][v]) };
        }
    }
    for r in 0..R {
        for v in 0..V {
            let column = v * LANES;
            if column < t.columns {
                // SAFETY: this vector was stored above; the contract of `new` covers row r of C and the bias and row
                // scale at these positions.
                unsafe { finish(s, t, r, column, s.load(spilled[r * V + v].as_ptr().cast())) };
            }
        }
    }
}

/// Vectors of the largest tile.
const MOST_VECTORS: usize = 24;

/// One step of k: every row's value times the panel's vectors.
///
/// # Safety
/// `a` is readable at r × stride for each r < R, `b` at V × 16 values.
#[inline(always)]
unsafe fn multiply_add<S: Simd, const R: usize, const V: usize>(
    s: S,
    a: *const f32,
    stride: usize,
    b: *const f32,
    sums: &mut [[S::F; V]; R],
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let b: [S::F; V] = std::array::from_fn(|v| s.load(b.add(v * LANES)));
        for r in 0..R {
            let x = s.splat(*a.add(r * stride));
            for v in 0..V {
                sums[r][v] = s.fma(x, b[v], sums[r][v]);
            }
        }
    }
}

/// Applies the epilogue to sixteen columns of row `r` and stores those that exist.
///
/// # Safety
/// The contract of [`TileKernel::new`].
#[inline(always)]
unsafe fn finish<S: Simd>(s: S, t: &Tile, r: usize, column: usize, sum: S::F) {
    let valid = (t.columns - column).min(LANES);
    let e = &t.epilogue;
    // SAFETY: row r and `valid` columns from `column` on exist in C; the bias is readable to the panel's end.
    unsafe {
        let c = t.c.add(r * t.c_stride + column);
        let mut y = sum;
        if !e.bias.is_null() {
            y = s.add(y, s.load(e.bias.add(column)));
        }
        if e.accumulate {
            let old =
                if valid == LANES { s.load(c) } else { s.load_partial(std::slice::from_raw_parts(c, valid), 0.0) };
            y = s.add(y, old);
        }
        y = act::apply(s, e.activation, y);
        if !e.row_scale.is_null() {
            y = s.mul(y, s.splat(*e.row_scale.add(r)));
        }
        if valid == LANES {
            s.store(c, y);
        } else {
            let lanes = s.to_array(y);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), c, valid);
        }
    }
}

/// Calls the kernel of the right height and width.
macro_rules! select {
    ($s:ident, $tile:ident, $rows:ident, $vectors:ident; $($r:literal)+) => {
        match ($rows, $vectors) {
            $(
                ($r, 1) if $r <= S::TILE_ROWS => $s.vectorize(unsafe_tile::<$r, 1>($tile)),
                ($r, 2) if $r <= S::TILE_ROWS && S::PANEL_VECTORS >= 2 => $s.vectorize(unsafe_tile::<$r, 2>($tile)),
            )+
            _ => unreachable!("a tile of {} rows and {} vectors", $rows, $vectors),
        }
    };
}

/// # Safety
/// The contract of [`TileKernel::new`] for `rows` rows and `vectors` vectors.
#[inline(always)]
pub(crate) unsafe fn run_tile<S: Simd>(s: S, rows: usize, vectors: usize, tile: Tile) {
    /// Only called by `run_tile`, whose caller keeps the contract.
    #[inline(always)]
    fn unsafe_tile<const R: usize, const V: usize>(tile: Tile) -> TileKernel<R, V> {
        // SAFETY: `run_tile` has the same contract.
        unsafe { TileKernel::new(tile) }
    }
    select!(s, tile, rows, vectors; 1 2 3 4 5 6 7 8 9 10 11 12);
}

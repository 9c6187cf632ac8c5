//! Sums of a block of outputs, turned into the rows of a layer's output and what follows.

use crate::activation::{Activation, value};
use crate::epilogue::Epilogue;
use crate::simd::{LANES, Simd, dispatch, load_part, store_part};

/// Outputs of a block.
pub(crate) const SIDE: usize = 32;

/// Sums of 16 rows by 16 outputs, one row behind the other.
pub(crate) const TILE: usize = LANES * LANES;

/// A block of outputs: its sums, and what makes outputs of them.
pub(crate) struct Part {
    /// For each [`SIDE`] rows four tiles: the upper rows' two, and the lower ones'.
    pub(crate) sums: *const f32,
    /// What each output is multiplied by.
    pub(crate) factors: *const f32,
    /// What is added.
    pub(crate) bias: Option<*const f32>,
}

/// Half a row of a block.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    half: usize,
    /// What the row is multiplied by.
    factor: f32,
    /// How many outputs there are.
    valid: usize,
}

impl Part {
    /// The outputs at a place.
    ///
    /// # Safety
    /// The set of `S`; the sums and factors there, and as many numbers of the bias as are valid.
    #[inline(always)]
    unsafe fn read<S: Simd>(&self, at: Place) -> S {
        let tile = at.row / LANES / 2 * 4 + at.row / LANES % 2 * 2 + at.half;
        // SAFETY: the caller's.
        unsafe {
            let sum = S::load(self.sums.add(tile * TILE + at.row % LANES * LANES));
            // The factors' product comes first: where they are powers of two it is exact, while the
            // sum times one of them may be too small to be.
            let factor = S::splat(at.factor).mul(S::load(self.factors.add(at.half * LANES)));
            let y = sum.mul(factor);
            match self.bias {
                Some(bias) => y.add(load_part(bias.add(at.half * LANES), at.valid)),
                None => y.add(S::splat(0.0)),
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn write_body<S: Simd>(
    rows: usize,
    columns: usize,
    block: &Part,
    gate: Option<&Part>,
    epilogue: Epilogue,
    by_row: *const f32,
    to: *mut f32,
    stride: usize,
) {
    // One loop for each, so that the choice is made once.
    macro_rules! each {
        (|$at:ident| $output:expr) => {
            for half in 0..columns.div_ceil(LANES) {
                let valid = LANES.min(columns - half * LANES);
                for row in 0..rows {
                    // SAFETY: the caller's; what lies behind the last column is neither read nor written.
                    unsafe {
                        let $at = Place { row, half, factor: *by_row.add(row), valid };
                        let y: S = $output;
                        store_part(y, to.add(row * stride + half * LANES), valid);
                    }
                }
            }
        };
    }
    macro_rules! all {
        ($($f:ident),*) => {
            match (epilogue, gate) {
                $(
                    (Epilogue::Activated(Activation::$f), _) => {
                        each!(|at| value(Activation::$f, block.read(at)))
                    }
                    (Epilogue::Gated(Activation::$f), Some(gate)) => {
                        each!(|at| block.read::<S>(at).mul(value(Activation::$f, gate.read(at))))
                    }
                )*
                _ => each!(|at| block.read(at)),
            }
        };
    }
    all!(Silu, Gelu, GeluTanh, QuickGelu);
}

dispatch! {
    /// Writes a block of up to [`SIDE`] outputs of some rows, and what follows, into rows `stride` apart;
    /// `gate` is the block of gates where the epilogue is one.
    ///
    /// # Safety
    /// The sums, factors and bias of the blocks; `rows` factors; room for `columns` numbers of each row.
    pub(crate) fn write_rows(
        rows: usize,
        columns: usize,
        block: &Part,
        gate: Option<&Part>,
        epilogue: Epilogue,
        by_row: *const f32,
        to: *mut f32,
        stride: usize,
    ) = write_body
}

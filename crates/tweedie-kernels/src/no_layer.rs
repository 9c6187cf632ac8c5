//! What stands in for [`crate::amx::layer`] on processors without tiles: nothing is ever packed.

use crate::Epilogue;
use crate::conv::Shape;
use crate::narrow::Half;

/// A layer that cannot be.
#[derive(Debug)]
pub(crate) enum Layer {}

impl Layer {
    pub(crate) fn new(_sizes: [usize; 3], _w: &[f32]) -> Option<Self> {
        None
    }

    pub(crate) fn narrow(_sizes: [usize; 3], _w: &[u8], _half: Half) -> Option<Self> {
        None
    }

    pub(crate) fn bytes(&self) -> usize {
        match *self {}
    }

    pub(crate) fn sizes(&self) -> [usize; 3] {
        match *self {}
    }

    pub(crate) fn unpack(&self) -> Vec<f32> {
        match *self {}
    }
}

pub(crate) fn rows(
    layer: &Layer,
    _rows: usize,
    _x: &[f32],
    _bias: Option<&[f32]>,
    _epilogue: Epilogue,
) -> Vec<f32> {
    match *layer {}
}

pub(crate) fn gates(layer: &Layer) -> bool {
    match *layer {}
}

pub(crate) fn image(
    layer: &Layer,
    _s: &Shape,
    _x: &[f32],
    _bias: Option<&[f32]>,
) -> Option<Vec<f32>> {
    match *layer {}
}

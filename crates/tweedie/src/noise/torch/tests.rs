//! Against numbers that torch drew (`tools/parity/noise.py`).

use burn::tensor::Device;
use serde_json::Value;

use super::*;

fn like(width: usize, wide: bool) -> State {
    let state = State::from_f64(vec![0.0; width], &[1, width], &Device::flex()).unwrap();
    if wide { state } else { state.map(|x| x.cast(DType::F32)) }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn the_numbers_of_torchs_cpu_generator() {
    let cases: Value =
        serde_json::from_str(include_str!("../../../tests/data/torch_noise.json")).unwrap();
    let cases = cases["cases"].as_array().unwrap();
    assert!(cases.len() > 40);
    for case in cases {
        let seed = case["seed"].as_u64().unwrap();
        let (drawn_as, wide, close) = match case["dtype"].as_str().unwrap() {
            "float64" => (DrawnAs::Full, true, 1e-13),
            "float32" => (DrawnAs::Full, false, 2e-6),
            // A step of the type, where the last bit of 32 decides the rounding.
            "float16" => (DrawnAs::F16, false, 2e-3),
            "bfloat16" => (DrawnAs::Bf16, false, 1.6e-2),
            other => panic!("{other}"),
        };
        let mut noise = Torch::cpu([seed]).drawn_as(drawn_as);
        let mut differ = 0;
        for draw in case["draws"].as_array().unwrap() {
            let width = draw["count"].as_u64().unwrap() as usize;
            let found = noise.draw(&like(width, wide)).unwrap().to_rows().remove(0);
            let place = |v: &Value| v.as_u64().unwrap() as usize;
            for (at, wanted) in
                draw["at"].as_array().unwrap().iter().map(place).zip(numbers(&draw["values"]))
            {
                let off = (found[at] - wanted).abs();
                assert!(
                    off <= close * wanted.abs().max(1.0),
                    "{case}: {at}: {} {wanted}",
                    found[at]
                );
                differ += usize::from(off > 0.0);
            }
        }
        if drawn_as != DrawnAs::Full {
            assert!(differ <= 2, "{differ} numbers are rounded otherwise: {case}");
        }
    }
}

#[test]
fn the_first_numbers_of_torch_on_a_gpu() {
    // What `torch.manual_seed(0); torch.randn(12, device="cuda")` prints, as A1111's source quotes
    // it for its own generator.
    let wanted = [
        -0.924_662_59,
        -0.425_344_15,
        -2.643_845_7,
        0.145_183_88,
        -0.120_866_47,
        -0.579_725_64,
        -0.622_851_22,
        -0.328_387_09,
        -1.074_542_31,
        -0.363_144_07,
        -1.671_050_67,
        2.265_504_97,
    ];
    let mut noise = Torch::cuda([0]);
    let found = noise.draw(&like(12, false)).unwrap().to_rows().remove(0);
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
    }
    let second = noise.draw(&like(12, false)).unwrap().to_rows().remove(0);
    assert_ne!(found, second);
}

#[test]
fn a_row_does_not_know_its_batch_and_twins_draw_apart() {
    let blank = |rows: usize| State::from_f64(vec![0.0; rows * 20], &[rows, 20], &Device::flex());
    for make in [|s: Vec<u64>| Torch::cpu(s), |s: Vec<u64>| Torch::cuda(s)] {
        let (mut one, mut three) = (make(vec![8]), make(vec![6, 7, 8]));
        for _ in 0..2 {
            let alone = one.draw(&blank(1).unwrap()).unwrap().to_rows();
            assert_eq!(alone[0], three.draw(&blank(3).unwrap()).unwrap().to_rows()[2]);
        }
        three.select(&[2, 2]);
        let rows = three.draw(&blank(2).unwrap()).unwrap().to_rows();
        assert_eq!(rows[0], one.draw(&blank(1).unwrap()).unwrap().to_rows()[0]);
        assert_ne!(rows[0], rows[1]);
        let (mut a, mut b) = (three.fork(1), three.fork(2));
        let (a, b) = (a.draw(&blank(2).unwrap()).unwrap(), b.draw(&blank(2).unwrap()).unwrap());
        assert_ne!(a.to_rows(), b.to_rows());
        assert!(three.draw(&blank(3).unwrap()).is_err());
        for v in three.uniform(2, 50).unwrap().concat() {
            assert!(v > 0.0 && v < 1.0);
        }
    }
}

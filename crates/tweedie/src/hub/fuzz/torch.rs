//! Files of PyTorch in both formats, made here byte by byte so that they can be broken anywhere.

use super::{Bound, Dice, Memory, Tally, answer, read_all};
use crate::Result;

/// Reads `mutations` broken files of `torch.save`; the finding is the number of the first one that was
/// not answered properly, and how.
///
/// # Errors
/// The finding, in words.
pub fn torch(mutations: usize, seed: u64, memory: Option<&Memory>) -> Result<Tally, String> {
    let bases = [zip(), old()];
    let mut tally = Tally::default();
    for number in 0..mutations {
        let mut dice = Dice::new(seed, number as u64);
        let mut bytes = bases[dice.below(2)].clone();
        for _ in 0..=dice.below(4) {
            mutate(&mut bytes, &mut dice);
        }
        answer(number, &mut tally, bytes.len(), Bound::new(memory), || read_all(bytes))?;
    }
    Ok(tally)
}

/// Changes bytes: single bits, numbers to extreme ones, instructions to others, pieces left out or
/// doubled.
fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    const INSTRUCTIONS: &[u8] = b"().012NKMJGXUTCB]}tlaedsuqrhjcRQb\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x93\x94\x95\x96io";
    if bytes.len() < 8 {
        return;
    }
    let at = dice.below(bytes.len());
    match dice.below(7) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << dice.below(8),
        2 => bytes[at] = INSTRUCTIONS[dice.below(INSTRUCTIONS.len())],
        3 => {
            let value = match dice.below(4) {
                0 => u64::MAX,
                1 => 1 << dice.below(64),
                2 => bytes.len() as u64,
                _ => dice.next(),
            };
            let width = [1, 2, 4, 8][dice.below(4)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        4 => {
            let to = (at + 1 + dice.below(30)).min(bytes.len());
            bytes.drain(at..to);
        }
        5 => {
            let to = (at + 1 + dice.below(60)).min(bytes.len());
            let piece = bytes[at..to].to_vec();
            let place = dice.below(bytes.len());
            bytes.splice(place..place, piece);
        }
        _ => {
            let run = vec![INSTRUCTIONS[dice.below(INSTRUCTIONS.len())]; dice.below(200)];
            bytes.splice(at..at, run);
        }
    }
}

/// A pickle of a checkpoint with two tensors of one storage each; the oldest format has a view behind
/// the count of a storage.
pub(super) fn pickle(views: bool) -> Vec<u8> {
    let mut out = b"\x80\x02}q\x00(X\x05\0\0\0epochK\x03X\x0a\0\0\0state_dictccollections\nOrderedDict\nq\x01)Rq\x02(".to_vec();
    for (name, key, class, shape) in
        [("a.weight", "0", "FloatStorage", [2, 3]), ("b.weight", "1", "HalfStorage", [3, 1])]
    {
        out.extend(b"X");
        out.extend((name.len() as u32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\n");
        out.extend(class.as_bytes());
        out.extend(b"\nX\x01\0\0\0");
        out.extend(key.as_bytes());
        out.extend(b"X\x03\0\0\0cpuK");
        out.push(shape[0] * shape[1]);
        if views {
            out.push(b'N');
        }
        out.extend([b't', b'Q', b'K', 0, b'K', shape[0], b'K', shape[1], 0x86]);
        // The first lies row after row, the second column after column.
        let strides = if shape[1] == 3 { [3, 1] } else { [1, 3] };
        out.extend([
            b'K', strides[0], b'K', strides[1], 0x86, 0x89, b'h', 1, b')', b'R', b't', b'R',
        ]);
    }
    out.extend(b"uu.");
    out
}

/// The format of today.
pub(super) fn zip() -> Vec<u8> {
    let entries = [
        ("m/data.pkl", pickle(false)),
        ("m/byteorder", b"little".to_vec()),
        ("m/data/0", vec![7; 24]),
        ("m/data/1", vec![9; 6]),
    ];
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in &entries {
        let start = out.len() as u32;
        let head = |to: &mut Vec<u8>| {
            to.extend([0; 4]);
            to.extend((content.len() as u32).to_le_bytes());
            to.extend((content.len() as u32).to_le_bytes());
            to.extend((name.len() as u16).to_le_bytes());
            to.extend([0; 2]);
        };
        out.extend(b"PK\x03\x04");
        out.extend([0; 10]);
        head(&mut out);
        out.extend(name.as_bytes());
        out.extend(content);
        directory.extend(b"PK\x01\x02");
        directory.extend([0; 12]);
        head(&mut directory);
        directory.extend([0; 10]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06");
    out.extend([0, 0, 0, 0, 4, 0, 4, 0]);
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}

/// The format before PyTorch 1.6.
pub(super) fn old() -> Vec<u8> {
    let mut out =
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    out.extend(b"\x80\x02}X\x0d\0\0\0little_endian\x88s.");
    out.extend(pickle(true));
    out.extend(b"\x80\x02](X\x01\0\0\0" as &[u8]);
    out.extend(b"0X\x01\0\0\x001e.");
    for (count, bytes) in [(6_u64, vec![7; 24]), (3, vec![9; 6])] {
        out.extend(count.to_le_bytes());
        out.extend(bytes);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::TensorFile;

    #[test]
    fn broken_files_of_pytorch_are_answered() {
        // Undamaged, both are read, and hold the same.
        for bytes in [zip(), old()] {
            let file = TensorFile::from_bytes(bytes, "base").unwrap();
            assert_eq!(file.names().collect::<Vec<_>>(), ["a.weight", "b.weight"]);
            assert_eq!(file.raw("a.weight").unwrap(), vec![7; 24]);
            assert_eq!(file.raw("b.weight").unwrap(), vec![9; 6]);
        }
        let tally = torch(1500, 1, None).unwrap();
        assert!(tally.refused > 900 && tally.read > 50, "{tally:?}");
    }
}

//! Files that `torch.save` wrote (`tools/parity/torch_files.py`), and files that try to run code.

use std::path::{Path, PathBuf};

use tweedie::hub::TensorFile;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch").join(name)
}

fn open(name: &str) -> TensorFile {
    TensorFile::open(path(name)).unwrap()
}

/// Both files hold the same tensors, bit for bit.
fn same(name: &str, reference: &str) {
    let (found, wanted) = (open(name), open(reference));
    let names: Vec<&str> = wanted.names().collect();
    assert_eq!(found.names().collect::<Vec<_>>(), names, "{name}");
    for tensor in names {
        assert_eq!(found.info(tensor).unwrap(), wanted.info(tensor).unwrap(), "{name}: {tensor}");
        assert_eq!(found.raw(tensor).unwrap(), wanted.raw(tensor).unwrap(), "{name}: {tensor}");
    }
}

#[test]
fn every_form_of_torch_save_is_read() {
    for name in ["weights-zip.ckpt", "weights-protocol5.ckpt", "weights-old.ckpt"] {
        same(name, "expected.safetensors");
        assert_eq!(open(name).metadata()["global_step"], "875000");
    }
    same("weights-bare.bin", "expected.safetensors");
    same("module.bin", "module.safetensors");
    same("eight.bin", "eight.safetensors");
    same("embedding.pt", "embedding.safetensors");
    same("embedding-plain.pt", "embedding.safetensors");
}

#[test]
fn code_is_refused_by_its_name() {
    for (name, says) in [
        ("evil-system.ckpt", "`posix.system`"),
        ("evil-eval.ckpt", "eval`"),
        ("evil-getattr.ckpt", "`builtins.getattr`"),
        ("copies.pt", "`w`: shape [1000], strides [0] takes more than the 4 bytes of its storage"),
    ] {
        let error = TensorFile::open(path(name)).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains('\n'), "{error}");
    }
}

/// A zip with one entry `x/data.pkl`, stored.
fn zipped(pickle: &[u8]) -> Vec<u8> {
    let name = b"x/data.pkl";
    let mut out = Vec::new();
    let sizes = |out: &mut Vec<u8>| {
        out.extend([0; 4]);
        out.extend((pickle.len() as u32).to_le_bytes());
        out.extend((pickle.len() as u32).to_le_bytes());
        out.extend((name.len() as u16).to_le_bytes());
        out.extend([0; 2]);
    };
    out.extend(b"PK\x03\x04");
    out.extend([0; 10]);
    sizes(&mut out);
    out.extend(name);
    out.extend(pickle);
    let start = out.len() as u32;
    out.extend(b"PK\x01\x02");
    out.extend([0; 12]);
    sizes(&mut out);
    out.extend([0; 14]);
    out.extend(name);
    let length = out.len() as u32 - start;
    out.extend(b"PK\x05\x06");
    out.extend([0, 0, 0, 0, 1, 0, 1, 0]);
    out.extend(length.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}

fn refused(pickle: &[u8]) -> String {
    let error = TensorFile::from_bytes(zipped(pickle), "m.pt").unwrap_err().to_string();
    assert!(!error.contains('\n') && error.len() < 400, "{error}");
    error
}

#[test]
fn hostile_pickles_cost_nothing() {
    // An empty dictionary is a file without tensors.
    assert!(TensorFile::from_bytes(zipped(b"\x80\x02}."), "m.pt").unwrap().is_empty());
    // A deep nest of lists, one inside the other.
    let mut nest = b"\x80\x02".to_vec();
    nest.extend(b"]".repeat(4000));
    nest.extend(b"a".repeat(3999));
    nest.push(b'.');
    assert!(TensorFile::from_bytes(zipped(&nest), "m.pt").unwrap().is_empty());
    // A million values of one byte each.
    let mut many = b"\x80\x02".to_vec();
    many.extend(b"N".repeat(1 << 20));
    assert!(refused(&many).contains("more values than"));
    // Dictionaries that double what they hold through the memo: `d = {}; d[0] = d[1] = the last one`.
    let mut bomb = b"\x80\x02}q\x00".to_vec();
    for i in 0..60_u8 {
        bomb.extend([b'}', b'q', i + 1, b'(']);
        for key in [b"a", b"b"] {
            bomb.extend(b"X\x01\0\0\0");
            bomb.extend(key);
            bomb.extend([b'h', i]);
        }
        bomb.push(b'u');
    }
    bomb.push(b'.');
    assert!(TensorFile::from_bytes(zipped(&bomb), "m.pt").unwrap().is_empty());
    // A dictionary inside itself.
    assert!(
        TensorFile::from_bytes(zipped(b"\x80\x02}q\0X\x01\0\0\0ah\0s."), "m.pt")
            .unwrap()
            .is_empty()
    );
    for (pickle, says) in [
        (b"\x80\x02".as_slice(), "truncated"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "truncated"),
        (b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.", "truncated"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "truncated"),
        (b"\x80\x02h\x07.", "nothing is remembered"),
        (b"\x80\x02.", "more from the stack"),
        (b"\x80\x02t.", "mark"),
        (b"\x80\x02)R.", "more from the stack"),
        (b"\x80\x02})R.", "calls what is no global"),
        (b"\x80\x02cos\nsystem\n.", "`os.system`"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "`os.system`"),
        (b"\x80\x02(ios\nsystem\n.", "instruction 0x69"),
        (b"\x80\x02K\x01Q.", "tuple"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "arguments"),
    ] {
        let error = refused(pickle);
        assert!(error.contains(says), "{says}: {error}");
    }
}

#[test]
fn damaged_zips_are_told() {
    let good = std::fs::read(path("weights-zip.ckpt")).unwrap();
    for length in [30, 100, good.len() / 2, good.len() - 10] {
        let error =
            TensorFile::from_bytes(good[..length].to_vec(), "m.pt").unwrap_err().to_string();
        assert!(error.contains("truncated") || error.contains("damaged"), "{error}");
    }
    let mut packed = zipped(b"\x80\x02}.");
    let central = packed.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    packed[central + 10] = 8;
    let error = TensorFile::from_bytes(packed, "m.pt").unwrap_err().to_string();
    assert!(error.contains("compressed"), "{error}");
}

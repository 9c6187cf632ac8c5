//! EXIF blocks with two texts: A1111's in `UserComment`, where other programs look for it, and our
//! own record in `MakerNote`.
//!
//! Layout: TIFF 6.0 and Exif 2.3 (JEITA CP-3451C). A block is read whatever its byte order, and
//! every offset in it is checked, because pictures come from strangers.

/// Tags of Exif 2.3.
const EXIF_IFD: u16 = 0x8769;
const USER_COMMENT: u16 = 0x9286;
const MAKER_NOTE: u16 = 0x927c;

/// Types of TIFF 6.0: a 32-bit number, and bytes whose meaning the tag says.
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;

/// How our record begins, so that a camera's own note is not taken for one.
const OURS: &[u8] = b"tweedie\0";

/// The two texts of a picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts {
    /// `UserComment`: A1111's `parameters`.
    pub(super) comment: Option<String>,
    /// Our own record.
    pub(super) record: Option<String>,
}

/// An EXIF block, big-endian, from its TIFF header on.
pub(super) fn encode(texts: &Texts) -> Vec<u8> {
    let mut values: Vec<(u16, Vec<u8>)> = Vec::new();
    if let Some(record) = &texts.record {
        values.push((MAKER_NOTE, [OURS, record.as_bytes()].concat()));
    }
    if let Some(comment) = &texts.comment {
        // A1111 and its readers write the comment as UTF-16 in the byte order of the block.
        let mut bytes = b"UNICODE\0".to_vec();
        bytes.extend(comment.encode_utf16().flat_map(u16::to_be_bytes));
        values.push((USER_COMMENT, bytes));
    }
    // The header, a directory of one entry that points to the second directory, its values.
    let mut out = b"MM\0\x2a\0\0\0\x08".to_vec();
    let second = 8 + 2 + 12 + 4;
    out.extend(1_u16.to_be_bytes());
    entry(&mut out, EXIF_IFD, LONG, 1, second);
    out.extend(0_u32.to_be_bytes());
    out.extend((values.len() as u16).to_be_bytes());
    let mut at = second + 2 + 12 * values.len() as u32 + 4;
    for (tag, bytes) in &values {
        entry(&mut out, *tag, UNDEFINED, bytes.len() as u32, at);
        at += bytes.len() as u32 + bytes.len() as u32 % 2;
    }
    out.extend(0_u32.to_be_bytes());
    for (_, bytes) in &values {
        out.extend(bytes);
        out.extend(std::iter::repeat_n(0, bytes.len() % 2));
    }
    out
}

fn entry(out: &mut Vec<u8>, tag: u16, kind: u16, count: u32, value: u32) {
    out.extend(tag.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(count.to_be_bytes());
    out.extend(value.to_be_bytes());
}

/// The texts of an EXIF block; nothing where it holds none or is broken.
pub(super) fn decode(block: &[u8]) -> Texts {
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let Some(reader) = Reader::new(block) else { return Texts::default() };
    let directory = reader.long(4).and_then(|first| reader.find(first, EXIF_IFD)).map(|e| e.value);
    let bytes = |tag| directory.and_then(|d| reader.find(d, tag)).and_then(|e| reader.bytes(e));
    let record = bytes(MAKER_NOTE).and_then(|b| b.strip_prefix(OURS));
    Texts {
        comment: bytes(USER_COMMENT).and_then(|b| reader.comment(b)),
        record: record.and_then(|b| String::from_utf8(b.to_vec()).ok()),
    }
}

/// One entry of a directory.
#[derive(Clone, Copy)]
struct Entry {
    /// Where it stands in the block.
    at: usize,
    kind: u16,
    count: u32,
    value: u32,
}

struct Reader<'a> {
    block: &'a [u8],
    little: bool,
}

impl<'a> Reader<'a> {
    fn new(block: &'a [u8]) -> Option<Self> {
        let little = match block.get(..4)? {
            b"II\x2a\0" => true,
            b"MM\0\x2a" => false,
            _ => return None,
        };
        Some(Self { block, little })
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = self.block.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = self.block.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// The entry of that tag in the directory at `directory`.
    fn find(&self, directory: u32, tag: u16) -> Option<Entry> {
        let directory = directory as usize;
        let count = self.short(directory)?;
        (0..usize::from(count)).map(|i| directory + 2 + 12 * i).find_map(|at| {
            (self.short(at)? == tag).then_some(())?;
            let (kind, count) = (self.short(at + 2)?, self.long(at + 4)?);
            Some(Entry { at, kind, count, value: self.long(at + 8)? })
        })
    }

    /// The bytes of an entry: in the entry itself where four hold them.
    fn bytes(&self, entry: Entry) -> Option<&'a [u8]> {
        // Bytes, text and undefined have one byte each.
        matches!(entry.kind, 1 | 2 | UNDEFINED).then_some(())?;
        let count = entry.count as usize;
        let start = if count <= 4 { entry.at + 8 } else { entry.value as usize };
        self.block.get(start..start.checked_add(count)?)
    }

    /// A user comment: its first eight bytes name the code.
    fn comment(&self, bytes: &[u8]) -> Option<String> {
        let (code, text) = bytes.split_at_checked(8)?;
        if code == b"UNICODE\0" {
            let (units, _) = text.as_chunks::<2>();
            let unit = |&pair: &[u8; 2]| {
                if self.little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
            };
            return String::from_utf16(&units.iter().map(unit).collect::<Vec<_>>()).ok();
        }
        let text = text.strip_suffix(b"\0").unwrap_or(text);
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Texts {
        Texts { comment: Some("a 猫\nSteps: 20".into()), record: Some("{\"seed\":1}".into()) }
    }

    #[test]
    fn texts_come_back() {
        assert_eq!(decode(&encode(&texts())), texts());
        let one = Texts { record: None, ..texts() };
        assert_eq!(decode(&[b"Exif\0\0".as_slice(), &encode(&one)].concat()), one);
        assert_eq!(decode(&encode(&Texts::default())), Texts::default());
    }

    /// Written by piexif 1.1.3 for the comment "ab" (`UserComment.dump("ab", "unicode")`).
    const OTHERS: &[u8] = &[
        77, 77, 0, 42, 0, 0, 0, 8, 0, 1, 135, 105, 0, 4, 0, 0, 0, 1, 0, 0, 0, 26, 0, 0, 0, 0, 0, 1,
        146, 134, 0, 7, 0, 0, 0, 12, 0, 0, 0, 44, 0, 0, 0, 0, 85, 78, 73, 67, 79, 68, 69, 0, 0, 97,
        0, 98,
    ];

    #[test]
    fn what_others_write_is_read() {
        assert_eq!(decode(OTHERS).comment.as_deref(), Some("ab"));
        assert_eq!(encode(&Texts { comment: Some("ab".into()), record: None }), OTHERS);
        // The same in the other byte order.
        let little: Vec<u8> = [
            b"II\x2a\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x1a\0\0\0\0\0\0\0".as_slice(),
            b"\x01\0\x86\x92\x07\0\x0c\0\0\0\x2c\0\0\0\0\0\0\0UNICODE\0a\0b\0",
        ]
        .concat();
        assert_eq!(decode(&little).comment.as_deref(), Some("ab"));
    }

    #[test]
    fn broken_blocks_hold_nothing_and_break_nothing() {
        let whole = encode(&texts());
        for cut in 0..whole.len() {
            let _ = decode(&whole[..cut]);
        }
        for at in 0..whole.len().min(120) {
            for value in [0, 1, 127, 255] {
                let mut bent = whole.clone();
                bent[at] = value;
                let _ = decode(&bent);
            }
        }
        assert_eq!(decode(b""), Texts::default());
    }
}

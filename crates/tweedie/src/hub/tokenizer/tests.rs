//! Against the numbers of transformers' `CLIPTokenizer`.

use std::path::PathBuf;

use super::*;
use crate::hub::{ClipVocabulary, Folder};

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../../tests/data/clip_tokenizer.json")).unwrap()
}

/// The words in whose vocabulary the fixture's numbers are.
fn words() -> Vec<String> {
    serde_json::from_str(include_str!("../../../tests/data/clip_words.json")).unwrap()
}

fn vocabulary() -> ClipVocabulary {
    ClipVocabulary::from_words(words()).unwrap()
}

/// Writes the files of that vocabulary for `tools/parity/clip_tokenizer.py`.
#[test]
#[ignore = "writes files for a script, into the folder TOKENIZER"]
fn write_the_files_of_the_fixture() {
    let folder = PathBuf::from(std::env::var("TOKENIZER").unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    for (name, text) in vocabulary().files(24) {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

fn tokenizer(vocabulary: &ClipVocabulary, length: usize, pad: Option<&str>) -> ClipTokenizer {
    let files: BTreeMap<_, _> = vocabulary.files(length).into_iter().collect();
    let file = PathBuf::from("tokenizer_config.json");
    let mut settings = json::object(&file, files["tokenizer_config.json"].as_bytes()).unwrap();
    if let Some(pad) = pad {
        settings.insert("pad_token".to_owned(), pad.into());
    }
    ClipTokenizer::new(
        Path::new("tokenizer"),
        &files["vocab.json"],
        &files["merges.txt"],
        &settings,
    )
    .unwrap()
}

#[test]
fn ids_equal_those_of_transformers() {
    let fixture = fixture();
    let vocabulary = vocabulary();
    let length = fixture["length"].as_u64().unwrap() as usize;
    assert_eq!(vocabulary.len() as u64, fixture["vocab_size"].as_u64().unwrap());
    for (key, pad) in [("padded_with_the_end", None), ("padded_with_a_sign", Some("!"))] {
        let tokenizer = tokenizer(&vocabulary, length, pad);
        assert_eq!(tokenizer.vocab_size(), vocabulary.len());
        let cases = fixture[key].as_array().unwrap();
        assert!(cases.len() >= 100);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let numbers = |key: &str| -> Vec<i64> {
                case[key].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect()
            };
            let tokens = tokenizer.encode(text).unwrap();
            assert_eq!(tokens.ids, numbers("ids"), "{key}: {text:?}");
            let mask: Vec<i64> = tokens.mask.iter().map(|m| i64::from(*m)).collect();
            assert_eq!(mask, numbers("mask"), "{key}: {text:?}");
        }
    }
}

#[test]
fn each_word_is_one_token() {
    let vocabulary = vocabulary();
    let tokenizer = tokenizer(&vocabulary, 16, None);
    let splitter = Splitter::new().unwrap();
    for word in words() {
        let pieces = splitter.split(&word).unwrap().len();
        assert_eq!(tokenizer.ids(&word).unwrap().len(), pieces, "{word}");
    }
    let [start, end, pad] = tokenizer.special();
    assert_eq!([start as usize, end as usize], vocabulary.special());
    assert_eq!(end, pad);
    assert_eq!(tokenizer.token(start).as_deref(), Some(START));
}

#[test]
fn long_texts_are_cut_and_too_long_ones_refused() {
    let vocabulary = ClipVocabulary::from_words(["red", "circle"]).unwrap();
    let tokenizer = tokenizer(&vocabulary, 8, None);
    let tokens = tokenizer.encode(&"red ".repeat(10)).unwrap();
    assert_eq!((tokens.ids.len(), tokens.left_out), (8, 4));
    assert_eq!(tokens.ids[7], vocabulary.special()[1] as i64);
    assert!(tokens.mask.iter().all(|m| *m));
    let error = tokenizer.encode(&"a".repeat(MAX_PROMPT + 1)).unwrap_err().to_string();
    assert!(error.starts_with("`prompt`: wanted at most"), "{error}");
}

#[test]
fn a_folder_is_read_and_what_is_wrong_in_it_named() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path().join("tokenizer");
    std::fs::create_dir(&at).unwrap();
    let index = r#"{"tokenizer":["transformers","CLIPTokenizer"]}"#;
    std::fs::write(root.path().join("model_index.json"), index).unwrap();
    let write = |name: &str, text: &str| std::fs::write(at.join(name), text).unwrap();
    let read = || {
        let folder = Folder::open(root.path()).unwrap();
        ClipTokenizer::read(&folder.component("tokenizer").unwrap())
    };
    let good = ClipVocabulary::from_words(["red"]).unwrap().files(10);
    let reset = || good.iter().for_each(|(name, text)| write(name, text));
    reset();
    assert_eq!(read().unwrap().length(), 10);
    for (file, text, says) in [
        ("vocab.json", "{\"a\":-1}", "wanted tokens and their ids"),
        ("vocab.json", "{\"a\":0}", "`bos_token` is not in the vocabulary"),
        ("vocab.json", "{\"a\":0,\"b\":0}", "another token has the id 0"),
        ("vocab.json", "{\"a\":4294967295}", "not below"),
        ("vocab.json", "{\"a\"", "wanted tokens and their ids"),
        ("merges.txt", "r e d\n", "`line 1`: wanted two symbols"),
        ("merges.txt", "#version: 0.2\nno such\n", "merges.txt"),
        ("tokenizer_config.json", "{\"model_max_length\":0}", "`model_max_length`: wanted 2 to"),
        ("tokenizer_config.json", "{\"model_max_length\":-5}", "`model_max_length`: wanted 2 to"),
        ("tokenizer_config.json", "[", "not valid JSON"),
    ] {
        write(file, text);
        let message = read().unwrap_err().to_string();
        assert!(message.contains(says) && !message.contains('\n'), "{file} {text}: {message}");
        reset();
    }
    write("tokenizer_config.json", "{\"model_max_length\":1000000000000000019884624838656}");
    assert_eq!(read().unwrap().length(), LENGTH);
    std::fs::remove_file(at.join("merges.txt")).unwrap();
    assert!(read().unwrap_err().to_string().contains("merges.txt"));
}

#[test]
fn one_file_stands_for_both() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(
        root.path().join("model_index.json"),
        r#"{"t":["transformers","CLIPTokenizer"]}"#,
    )
    .unwrap();
    let at = root.path().join("t");
    std::fs::create_dir(&at).unwrap();
    let files: BTreeMap<_, _> = vocabulary().files(24).into_iter().collect();
    let vocab: Value = serde_json::from_str(&files["vocab.json"]).unwrap();
    let lines: Vec<&str> = files["merges.txt"].lines().skip(1).collect();
    let pairs: Vec<Vec<&str>> = lines.iter().map(|l| l.split(' ').collect()).collect();
    let read = |merges: Value, suffix: &str| {
        let model = serde_json::json!({
            "type": "BPE", "end_of_word_suffix": suffix, "vocab": vocab, "merges": merges,
        });
        let text = serde_json::json!({"version": "1.0", "model": model}).to_string();
        std::fs::write(at.join("tokenizer.json"), text).unwrap();
        ClipTokenizer::read(&Folder::open(root.path()).unwrap().component("t").unwrap())
    };
    let wanted = tokenizer(&vocabulary(), 24, None).ids("a redder café").unwrap();
    for merges in [serde_json::json!(lines), serde_json::json!(pairs)] {
        assert_eq!(read(merges, "</w>").unwrap().ids("a redder café").unwrap(), wanted);
    }
    for (merges, suffix) in [(serde_json::json!(pairs), ""), (serde_json::json!(["abc"]), "</w>")] {
        let message = read(merges, suffix).unwrap_err().to_string();
        assert!(message.contains("tokenizer.json: ") && !message.contains('\n'), "{message}");
    }
}

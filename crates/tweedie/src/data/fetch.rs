//! Brings a public data set to this machine.
//!
//! The library speaks no HTTP. [`get`] asks a [`Fetch`] for the bytes, checks them as they come
//! and puts a file in its place only when all of it is right.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::sets::{File, Set};
use crate::{Error, Result};

/// Fetches the bytes at an address. The command line has one that speaks HTTP; tests have one
/// that reads from memory.
pub trait Fetch {
    /// Opens the address for reading.
    ///
    /// # Errors
    /// Whatever keeps it from being read, a status other than success among it.
    fn open(&self, address: &str) -> std::io::Result<Box<dyn Read>>;
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was there already, with the right checksum.
    Kept,
    /// It was fetched.
    Fetched,
}

/// Brings a set into the folder `into/NAME` and returns that folder.
///
/// Files that are there with the right checksum are kept. Every other file is written beside its
/// place, checked for length and SHA-256 and then renamed, so that there is never half a file
/// under its name, however the run ends. `progress` hears the file and how many of its bytes are
/// there.
///
/// # Errors
/// [`Error::Io`] if a folder or file cannot be written; [`Error::Format`], with what each address
/// answered, if none of them gave the right bytes.
pub fn get(
    set: &Set,
    into: &Path,
    fetch: &dyn Fetch,
    progress: &mut dyn FnMut(&File, u64),
) -> Result<(PathBuf, Vec<Outcome>)> {
    let folder = into.join(set.name);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let outcome = |file: &File| {
        let place = folder.join(file.name);
        if place.is_file() && check(file, &place).is_ok() {
            progress(file, file.bytes);
            return Ok(Outcome::Kept);
        }
        get_file(file, &place, &folder, fetch, progress).map(|()| Outcome::Fetched)
    };
    let outcomes = set.files.iter().map(outcome).collect::<Result<_>>()?;
    Ok((folder, outcomes))
}

/// Checks length and checksum of all files of a set in their folder.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read; [`Error::Format`] if it is not the published one.
pub fn verify(set: &Set, folder: &Path) -> Result<()> {
    set.files.iter().try_for_each(|file| check(file, &folder.join(file.name)))
}

fn check(file: &File, path: &Path) -> Result<()> {
    let mut from = std::fs::File::open(path).map_err(Error::io(path))?;
    match copy(file, &mut from, &mut std::io::sink(), &mut |_| ()) {
        Ok(()) => Ok(()),
        Err(Trouble::Bytes(why) | Trouble::From(why)) => Err(Error::format(path, "", why)),
        Err(Trouble::To(e)) => Err(Error::io(path)(e)),
    }
}

/// Fetches one file from the first of its addresses that serves it rightly.
fn get_file(
    file: &File,
    place: &Path,
    folder: &Path,
    fetch: &dyn Fetch,
    progress: &mut dyn FnMut(&File, u64),
) -> Result<()> {
    let mut said = Vec::new();
    for address in file.from {
        let mut from = match fetch.open(address) {
            Ok(from) => from,
            Err(e) => {
                said.push(format!("{address}: {e}"));
                continue;
            }
        };
        // Dropping it removes it: on every way out but the last there is no file left.
        let mut part = tempfile::Builder::new()
            .prefix(".part-")
            .tempfile_in(folder)
            .map_err(Error::io(folder))?;
        match copy(file, &mut from, part.as_file_mut(), &mut |n| progress(file, n)) {
            Ok(()) => {
                part.as_file().sync_all().map_err(Error::io(place))?;
                readable(part.as_file()).map_err(Error::io(place))?;
                part.persist(place).map_err(|e| Error::io(place)(e.error))?;
                return Ok(());
            }
            Err(Trouble::To(e)) => return Err(Error::io(place)(e)),
            Err(Trouble::From(why) | Trouble::Bytes(why)) => said.push(format!("{address}: {why}")),
        }
    }
    let said = if said.is_empty() { "no address is known".into() } else { said.join("; ") };
    Err(Error::format(place, "", format!("could not be fetched: {said}")))
}

/// Gives a file the rights that a data file has; temporary files are closed to other users.
fn readable(file: &std::fs::File) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    let _ = file;
    Ok(())
}

/// What can go wrong while a file is copied.
enum Trouble {
    /// The bytes are not those of the file.
    Bytes(String),
    /// The source cannot be read.
    From(String),
    /// The target cannot be written.
    To(std::io::Error),
}

/// Copies a file and checks its length and checksum on the way; reads at most one byte too many.
fn copy(
    file: &File,
    from: &mut dyn Read,
    to: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Trouble> {
    let mut hash = Sha256::new();
    let mut from = from.take(file.bytes.saturating_add(1));
    let mut buffer = vec![0; 1 << 16];
    let mut seen = 0u64;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Trouble::From(e.to_string())),
        };
        seen += n as u64;
        hash.update(&buffer[..n]);
        to.write_all(&buffer[..n]).map_err(Trouble::To)?;
        progress(seen.min(file.bytes));
    }
    if seen != file.bytes {
        let found = if seen > file.bytes { "more".into() } else { seen.to_string() };
        return Err(Trouble::Bytes(format!("has {found} bytes, wanted {}", file.bytes)));
    }
    let found = format!("{:x}", hash.finalize());
    if found != file.sha256 {
        return Err(Trouble::Bytes(format!("has sha256 {found}, wanted {}", file.sha256)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::io::{Error as IoError, ErrorKind};
    use std::net::{TcpListener, TcpStream};

    /// "hello, world" and its digest.
    const HELLO: &[u8] = b"hello, world";
    const TINY: Set = Set {
        name: "tiny",
        about: "two words",
        licence: "CC0",
        home: "nowhere",
        classes: &[],
        files: &[File {
            name: "hello",
            bytes: 12,
            sha256: "09ca7e4eaa6e8ae9c7d261167129184883644d07dfba7cbfbc4c8a2e08360d5b",
            from: &["first", "second"],
        }],
    };

    #[derive(Default)]
    struct Memory {
        pages: BTreeMap<&'static str, Vec<u8>>,
        asked: RefCell<Vec<String>>,
    }

    impl Fetch for Memory {
        fn open(&self, address: &str) -> std::io::Result<Box<dyn Read>> {
            self.asked.borrow_mut().push(address.to_owned());
            let page = self.pages.get(address).ok_or(IoError::new(ErrorKind::NotFound, "404"))?;
            Ok(Box::new(std::io::Cursor::new(page.clone())))
        }
    }

    fn memory(pages: &[(&'static str, &[u8])]) -> Memory {
        let pages = pages.iter().map(|(a, p)| (*a, p.to_vec())).collect();
        Memory { pages, ..Memory::default() }
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name();
        let list = std::fs::read_dir(dir).unwrap().map(name);
        list.map(|n| n.into_string().unwrap()).collect()
    }

    #[test]
    fn the_second_address_serves_where_the_first_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let web = memory(&[("second", HELLO)]);
        let mut heard = 0;
        let (folder, what) = get(&TINY, dir.path(), &web, &mut |_, n| heard = n).unwrap();
        assert_eq!((what, heard), (vec![Outcome::Fetched], 12));
        assert_eq!(std::fs::read(folder.join("hello")).unwrap(), HELLO);
        verify(&TINY, &folder).unwrap();
        // What is right is kept, what is not is fetched anew.
        assert_eq!(get(&TINY, dir.path(), &web, &mut |_, _| ()).unwrap().1, [Outcome::Kept]);
        assert_eq!(web.asked.borrow().len(), 2);
        std::fs::write(folder.join("hello"), "hello, w0rld").unwrap();
        assert!(verify(&TINY, &folder).unwrap_err().to_string().contains("sha256"));
        assert_eq!(get(&TINY, dir.path(), &web, &mut |_, _| ()).unwrap().1, [Outcome::Fetched]);
    }

    #[test]
    fn wrong_bytes_never_take_the_place_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let web = memory(&[("first", b"hello, w0rld"), ("second", b"hello, world and more")]);
        let said = get(&TINY, dir.path(), &web, &mut |_, _| ()).unwrap_err().to_string();
        assert!(said.contains("first: has sha256 ") && said.contains("second: has more bytes"));
        let said = get(&TINY, dir.path(), &memory(&[("first", b"hell")]), &mut |_, _| ());
        let said = said.unwrap_err().to_string();
        assert!(said.contains("first: has 4 bytes, wanted 12; second: 404"), "{said}");
        assert_eq!(names(&dir.path().join("tiny")), [""; 0], "nothing is left behind");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = get(&TINY, file.path(), &Memory::default(), &mut |_, _| ()).unwrap_err();
        assert!(matches!(said, Error::Io { .. }), "{said}");
    }

    /// The least of HTTP: one request, one answer.
    struct Plain(std::net::SocketAddr);

    impl Fetch for Plain {
        fn open(&self, address: &str) -> std::io::Result<Box<dyn Read>> {
            let mut stream = TcpStream::connect(self.0)?;
            // In one piece: the server answers and closes after what it reads first.
            stream.write_all(format!("GET /{address} HTTP/1.0\r\n\r\n").as_bytes())?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            if head.starts_with(b"HTTP/1.0 200") {
                return Ok(Box::new(stream));
            }
            Err(IoError::other("no success"))
        }
    }

    #[test]
    fn over_a_socket_that_breaks_off_and_then_serves() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let answers: [&[u8]; 3] = [
                b"HTTP/1.0 200 OK\r\n\r\nhello, ",
                b"HTTP/1.0 500 no\r\n\r\n",
                b"HTTP/1.0 200 OK\r\n\r\nhello, world",
            ];
            for answer in answers {
                let (mut stream, _) = server.accept().unwrap();
                let mut request = [0; 256];
                let _ = stream.read(&mut request).unwrap();
                stream.write_all(answer).unwrap();
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let said = get(&TINY, dir.path(), &Plain(address), &mut |_, _| ()).unwrap_err();
        let said = said.to_string();
        assert!(said.contains("has 7 bytes") && said.contains("no success"), "{said}");
        let (folder, _) = get(&TINY, dir.path(), &Plain(address), &mut |_, _| ()).unwrap();
        verify(&TINY, &folder).unwrap();
        serving.join().unwrap();
    }
}

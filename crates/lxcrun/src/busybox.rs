//! busybox, which the default root file system is made of.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where it is, by distribution.
const PLACES: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// Finds one that needs no libraries, which nobody would put beside it.
///
/// # Errors
/// What is wrong with it: `is not installed`.
pub fn find_busybox() -> Result<PathBuf, String> {
    find_in(PLACES.iter().map(Path::new))
}

fn find_in<'p>(places: impl Iterator<Item = &'p Path>) -> Result<PathBuf, String> {
    let mut reason = "is not installed".to_owned();
    for place in places {
        match is_static(place) {
            Ok(true) => return Ok(place.into()),
            Ok(false) => reason = format!("needs libraries ({})", place.display()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => reason = format!("can't be used ({}: {e})", place.display()),
        }
    }
    Err(reason)
}

/// Whether nothing is named in a program that would load its libraries: elf(5), `PT_INTERP`.
fn is_static(program: &Path) -> io::Result<bool> {
    const PT_INTERP: u32 = 3;
    let mut start = Vec::new();
    File::open(program)?.take(4096).read_to_end(&mut start)?;
    let short = |at: usize| Some(usize::from(u16::from_ne_bytes(*start.get(at..)?.first_chunk()?)));
    let word = |at: usize| Some(u32::from_ne_bytes(*start.get(at..)?.first_chunk()?));
    let header = || {
        let is_64_bit = *start.get(4)? == 2;
        let first = if is_64_bit { 64 } else { 52 };
        let (size, number) = if is_64_bit { (short(54)?, short(56)?) } else { (short(42)?, short(44)?) };
        // Linkers put the program's headers behind the file's.
        (0..number).map(|index| word(first + index * size)).collect::<Option<Vec<u32>>>()
    };
    match header() {
        Some(types) if start.starts_with(b"\x7fELF") => Ok(!types.contains(&PT_INTERP)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "is no program")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of a program for 64 bits with segments of these types.
    fn program(types: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56 * types.len()];
        bytes[..5].copy_from_slice(b"\x7fELF\x02");
        bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(types.len()).unwrap().to_ne_bytes());
        for (index, kind) in types.iter().enumerate() {
            bytes[64 + 56 * index..][..4].copy_from_slice(&kind.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn one_that_needs_libraries_will_not_do() {
        let directory = tempfile::tempdir().unwrap();
        let [dynamic, own] = ["dynamic", "static"].map(|name| directory.path().join(name));
        let find = |places: &[&Path]| find_in(places.iter().copied());
        assert!(find(&[&dynamic]).unwrap_err().contains("is not installed"));
        std::fs::write(&dynamic, program(&[6, 3, 1])).unwrap();
        assert!(find(&[&dynamic, &own]).unwrap_err().contains("needs libraries"));
        std::fs::write(&own, program(&[1, 1])).unwrap();
        assert_eq!(find(&[&dynamic, &own]).unwrap(), own);
        std::fs::write(&own, "#!/bin/sh\n").unwrap();
        assert!(find(&[&own]).unwrap_err().contains("is no program"));
        std::fs::write(&own, &program(&[1; 8])[..100]).unwrap();
        assert!(find(&[&own]).unwrap_err().contains("is no program"));
    }

    #[test]
    fn the_tests_own_program_needs_libraries() {
        assert!(!is_static(&std::env::current_exe().unwrap()).unwrap());
    }
}

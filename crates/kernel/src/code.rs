//! The code of this process and its constants, in memory.

use std::fs;

/// Gives the kernel back the pages of programs and libraries that this process has used so far and can't write to. Those
/// that are used again come from the page cache: the rest is counted as this process's no longer.
///
/// # Errors
/// Of reading /proc/self/smaps.
pub fn free_code() -> std::io::Result<()> {
    for (start, length) in unchanged(&fs::read_to_string("/proc/self/smaps")?) {
        // SAFETY: a private mapping of a file that may not be written to and never was has the file's content, and has it
        // again when it is next looked at; that this very code is among it makes no difference.
        unsafe { libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// Where /proc/PID/smaps says that files are which nobody may write to, and how much of them. Not addresses that the loader
/// has written there before: such a page is the process's own (`Anonymous`, proc_pid_smaps(5)).
fn unchanged(smaps: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut of_file = None;
    smaps.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        match (fields.next()?, fields.next()?) {
            ("Anonymous:", "0") => of_file.take(),
            (field, _) if field.ends_with(':') => None,
            (place, access) => {
                let is_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
                of_file = range(place).filter(|_| is_file && matches!(access, "r--p" | "r-xp"));
                None
            }
        }
    })
}

/// The beginning and the length of `START-END`.
fn range(place: &str) -> Option<(usize, usize)> {
    let (start, end) = place.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    Some((start, usize::from_str_radix(end, 16).ok()?.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_as_they_are_can_be_given_back() {
        let mapping = |access: &str, file: &str, anonymous: u32| {
            format!(
                "00401000-00409000 {access} 00001000 fe:00 1234 {file}\nSize: 32 kB\nAnonymous: {anonymous} kB\nVmFlags: rd mr\n"
            )
        };
        let of = |smaps: &str| unchanged(smaps).collect::<Vec<_>>();
        let all = [(0x40_1000, 0x8000)];
        assert_eq!(of(&mapping("r-xp", "/usr/bin/program", 0)), all);
        assert_eq!(of(&mapping("r--p", "/usr/bin/program", 0)), all);
        assert_eq!(of(&mapping("r--p", "/usr/bin/program", 4)), []);
        assert_eq!(of(&mapping("rw-p", "/usr/bin/program", 0)), []);
        assert_eq!(of(&mapping("r--s", "/usr/bin/program", 0)), []);
        assert_eq!(of(&mapping("r-xp", "[vdso]", 0)), []);
        assert_eq!(of(&mapping("r-xp", "", 0)), []);
        let two = mapping("r--p", "/usr/bin/program", 4) + &mapping("r-xp", "/usr/bin/program", 0);
        assert_eq!(of(&two), all);
    }

    #[test]
    fn the_program_goes_on_without_it() {
        free_code().unwrap();
        assert_eq!(format!("{:?}", std::time::Duration::from_millis(1500)), "1.5s");
    }
}

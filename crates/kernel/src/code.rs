//! The code of this process and its constants, in memory.

use std::fs;

/// Gives the kernel back the pages of programs and libraries that this process has used so far and can't write to. Those
/// that are used again come from the page cache: the rest is counted as this process's no longer.
///
/// # Errors
/// Of reading /proc/self/maps.
pub fn free_code() -> std::io::Result<()> {
    for (start, length) in fs::read_to_string("/proc/self/maps")?.lines().filter_map(code) {
        // SAFETY: a private mapping of a file that may not be written to has the file's content, and has it again when
        // it is next looked at; that this very code is among it makes no difference.
        unsafe { libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// Where a line of /proc/PID/maps says that code of a file is, and how much, or what begins a file: headers and constants.
/// What comes later and is only to be read was written to before that: addresses.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let (access, offset, file) = (fields.next()?, fields.next()?, fields.nth(2)?);
    let is_code = access == "r-xp" || (access == "r--p" && offset == "00000000");
    (is_code && file.starts_with('/')).then(|| (start, end.saturating_sub(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_code() {
        let line =
            |access: &str, file: &str| format!("00401000-00409000 {access} 00001000 fe:00 1234 {file}");
        assert_eq!(code(&line("r-xp", "/usr/bin/program")), Some((0x40_1000, 0x8000)));
        assert_eq!(code(&line("r--p", "/usr/bin/program")), None);
        assert_eq!(
            code("00400000-00401000 r--p 00000000 fe:00 1234 /usr/bin/program"),
            Some((0x40_0000, 0x1000))
        );
        assert_eq!(code(&line("rwxp", "/usr/bin/program")), None);
        assert_eq!(code(&line("r-xp", "[vdso]")), None);
        assert_eq!(code(&line("r-xp", "")), None);
    }

    #[test]
    fn the_program_goes_on_without_it() {
        free_code().unwrap();
        assert_eq!(format!("{:?}", std::time::Duration::from_millis(1500)), "1.5s");
    }
}

//! The code of this process and its constants, in memory.

use std::{fs, io};

/// Gives the kernel back the pages of the program and its libraries that this process has used so far and that nobody may
/// write to. Those that are used again come from the page cache: the rest is counted as this process's no longer.
///
/// Safe at any time and in any thread, because only what can't have other content than its file is given back: segments that
/// the program, or a library that is loaded meanwhile, has to be read or executed only. Their constants and code are never
/// changed, or the program would be wrong without this, too. What the loader itself has to change there, which a library may
/// ask for (`DT_TEXTREL`), keeps all of its pages, and so does what a debugger has written to.
///
/// # Errors
/// Of reading /proc/self/smaps.
pub fn free_code() -> io::Result<()> {
    let mut unchanged: Unchanged = None;
    // SAFETY: the callback has the right type, and what it is given is what it takes it for and lives across the call.
    unsafe { libc::dl_iterate_phdr(Some(free_object), (&raw mut unchanged).cast()) };
    match unchanged {
        Some(Err(e)) => Err(e),
        _ => Ok(()),
    }
}

/// A part of the memory: its first address, and the one after its last.
type Range = std::ops::Range<usize>;

/// Where files are as they are, read when the first object is looked at.
type Unchanged = Option<io::Result<Vec<Range>>>;

/// Gives back what there is of one object. No object is unloaded meanwhile, nor another one put in its place: the loader has
/// its lock (glibc's `dl_load_write_lock`; musl unloads none at all).
///
/// # Safety
/// As of `dl_iterate_phdr(3)`'s callback, with a [`Unchanged`] as its data.
unsafe extern "C" fn free_object(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    unchanged: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the caller's promise.
    let object = unsafe { &*object };
    // SAFETY: the caller's promise.
    let known = unsafe { &mut *unchanged.cast::<Unchanged>() };
    let read = || Ok(unchanged_in(&fs::read_to_string("/proc/self/smaps")?).collect());
    let Ok(unchanged) = known.get_or_insert_with(read) else { return 1 };
    // SAFETY: the loader tells where its headers are, and how many.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    // SAFETY: they are those of this object, which is loaded.
    if unsafe { is_relocated_everywhere(object.dlpi_addr, headers) } {
        return 0;
    }
    for mapping in unchanged.iter().filter(|mapping| is_read_only(mapping, object.dlpi_addr, headers)) {
        let start = std::ptr::without_provenance_mut(mapping.start);
        // SAFETY: a private mapping of a file that nobody may write to, that the loader does not write to and that was never
        // written to. It has the file's content, and has it again when it is next looked at; that this very code is among it
        // makes no difference.
        unsafe { libc::madvise(start, mapping.len(), libc::MADV_DONTNEED) };
    }
    0
}

/// Whether a mapping is of an object's segments that may not be written to, and of no other.
fn is_read_only(mapping: &Range, base: u64, headers: &[libc::Elf64_Phdr]) -> bool {
    let mut found = false;
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
        let start = usize::try_from(base.wrapping_add(header.p_vaddr)).unwrap_or(0);
        let end = start.saturating_add(usize::try_from(header.p_memsz).unwrap_or(usize::MAX));
        if start < mapping.end && mapping.start < end {
            if header.p_flags & libc::PF_W != 0 {
                return false;
            }
            found = true;
        }
    }
    found
}

/// An entry of an object's dynamic section: elf(5), `Elf64_Dyn`.
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: u64,
}

const DT_NULL: i64 = 0;
const DT_TEXTREL: i64 = 22;
const DT_FLAGS: i64 = 30;
const DF_TEXTREL: u64 = 4;

/// Whether the loader may have to change what the object's segments say is not to be.
///
/// # Safety
/// The headers are those of an object that is loaded at `base`.
unsafe fn is_relocated_everywhere(base: u64, headers: &[libc::Elf64_Phdr]) -> bool {
    let Some(header) = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC) else { return false };
    let (Ok(place), Ok(size)) =
        (usize::try_from(base.wrapping_add(header.p_vaddr)), usize::try_from(header.p_memsz))
    else {
        return true;
    };
    let entries = std::ptr::with_exposed_provenance::<Dynamic>(place);
    // SAFETY: the caller's promise: there is the object's dynamic section, of which the loader changes no tag nor flag.
    let entries = unsafe { std::slice::from_raw_parts(entries, size / size_of::<Dynamic>()) };
    let mut entries = entries.iter().take_while(|entry| entry.tag != DT_NULL);
    entries.any(|entry| match entry.tag {
        DT_TEXTREL => true,
        DT_FLAGS => entry.value & DF_TEXTREL != 0,
        _ => false,
    })
}

/// Where /proc/PID/smaps says that files are which nobody may write to, and how much of them. Not where somebody has written
/// before, like the loader: such a page is the process's own (`Anonymous`, proc_pid_smaps(5)), in memory or not (`Swap`).
fn unchanged_in(smaps: &str) -> impl Iterator<Item = Range> {
    let mut of_file = None;
    smaps.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        match (fields.next()?, fields.next()?) {
            ("Anonymous:", own) if own != "0" => of_file = None,
            ("Swap:", own) => return of_file.take().filter(|_| own == "0"),
            (field, _) if field.ends_with(':') => {}
            (place, access) => {
                let is_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
                of_file = range(place).filter(|_| is_file && matches!(access, "r--p" | "r-xp"));
            }
        }
        None
    })
}

/// `START-END`
fn range(place: &str) -> Option<Range> {
    let (start, end) = place.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn only_files_as_they_are_can_be_given_back() {
        let swapped = |access: &str, file: &str, anonymous: u32, swap: u32| {
            format!(
                "00401000-00409000 {access} 00001000 fe:00 1234 {file}\nSize: 32 kB\nAnonymous: {anonymous} kB\n\
                 Swap: {swap} kB\nSwapPss: {swap} kB\nVmFlags: rd mr\n"
            )
        };
        let mapping = |access: &str, file: &str, anonymous: u32| swapped(access, file, anonymous, 0);
        let of = |smaps: &str| unchanged_in(smaps).collect::<Vec<_>>();
        let all = [Range { start: 0x40_1000, end: 0x40_9000 }];
        assert_eq!(of(&mapping("r-xp", "/usr/bin/program", 0)), all);
        assert_eq!(of(&mapping("r--p", "/usr/bin/program", 0)), all);
        assert_eq!(of(&mapping("r--p", "/usr/bin/program", 4)), []);
        assert_eq!(of(&swapped("r--p", "/usr/bin/program", 0, 4)), []);
        assert_eq!(of(&mapping("rw-p", "/usr/bin/program", 0)), []);
        assert_eq!(of(&mapping("r--s", "/usr/bin/program", 0)), []);
        assert_eq!(of(&mapping("r-xp", "[vdso]", 0)), []);
        assert_eq!(of(&mapping("r-xp", "", 0)), []);
        let two = mapping("r--p", "/usr/bin/program", 4) + &mapping("r-xp", "/usr/bin/program", 0);
        assert_eq!(of(&two), all);
    }

    fn segment(kind: u32, flags: u32, start: u64, length: u64) -> libc::Elf64_Phdr {
        libc::Elf64_Phdr {
            p_type: kind,
            p_flags: flags,
            p_offset: 0,
            p_vaddr: start,
            p_paddr: start,
            p_filesz: length,
            p_memsz: length,
            p_align: 0x1000,
        }
    }

    #[test]
    fn only_segments_that_nobody_may_write_to_are_given_back() {
        let headers = [
            segment(libc::PT_LOAD, libc::PF_R, 0, 0x1001),
            segment(libc::PT_LOAD, libc::PF_R | libc::PF_X, 0x2001, 0x1000),
            segment(libc::PT_LOAD, libc::PF_R | libc::PF_W, 0x4fff, 2),
            segment(libc::PT_NOTE, libc::PF_R, 0x8000, 0x1000),
        ];
        for (mapping, is) in [
            (0..0x2000, true),
            (0x2000..0x4000, true),
            (0x2000..0x5000, false),
            (0x4000..0x6000, false),
            (0x6000..0x7000, false),
            (0x8000..0x9000, false),
        ] {
            let mapping = 0x10_0000 + mapping.start..0x10_0000 + mapping.end;
            assert_eq!(is_read_only(&mapping, 0x10_0000, &headers), is, "{mapping:x?}");
        }
    }

    /// Held by who gives back, because that is what the whole process has, and another test may just look at it.
    static GIVING_BACK: Mutex<()> = Mutex::new(());

    /// Constants of this program, among other things that have no part in its test.
    static CONSTANTS: [u8; 1 << 20] = [7; 1 << 20];

    #[test]
    fn what_was_used_is_given_back_and_reads_the_same_again() {
        let _alone = GIVING_BACK.lock().unwrap();
        let resident = || {
            let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
            let place = CONSTANTS.as_ptr().addr() + CONSTANTS.len() / 2;
            let mut inside = false;
            let of_constants = smaps.lines().filter_map(|line| {
                let first = line.split_ascii_whitespace().next()?;
                if !first.ends_with(':') {
                    inside = range(first).is_some_and(|range| range.contains(&place));
                }
                line.strip_prefix("Rss:")
                    .filter(|_| inside)?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse::<usize>()
                    .ok()
            });
            of_constants.sum::<usize>()
        };
        let sum = || std::hint::black_box(&CONSTANTS).iter().map(|byte| usize::from(*byte)).sum::<usize>();
        assert_eq!(sum(), 7 << 20);
        let before = resident();
        assert!(before >= 1 << 10, "{before} KiB");
        free_code().unwrap();
        let after = resident();
        assert!(after + (1 << 9) < before, "{after} KiB after {before}");
        assert_eq!(sum(), 7 << 20);
    }

    #[test]
    fn the_program_goes_on_without_it() {
        let _alone = GIVING_BACK.lock().unwrap();
        free_code().unwrap();
        assert_eq!(format!("{:?}", std::time::Duration::from_millis(1500)), "1.5s");
    }
}

//! What /proc/PID/mountinfo says: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount, as its line tells it. The line is taken apart only as far as somebody asks: a host has hundreds, and most are of no
/// interest from their place on.
#[derive(Debug, Clone, Copy)]
pub struct MountInfo<'t>(&'t str);

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountedFilesystem<'t> {
    /// Its type, like `proc`.
    pub fstype: &'t str,
    /// The options of the whole file system, with commas between.
    pub options: &'t str,
}

impl<'t> MountInfo<'t> {
    /// All mounts of a table, in their order.
    pub fn all(table: &'t str) -> impl Iterator<Item = Self> {
        table.lines().map(Self)
    }

    /// Its number.
    #[must_use]
    pub fn id(self) -> Option<u64> {
        self.field(0)?.parse().ok()
    }

    /// The number of the mount that it is on.
    #[must_use]
    pub fn parent(self) -> Option<u64> {
        self.field(1)?.parse().ok()
    }

    /// Which part of the file system it shows, with octal escapes.
    #[must_use]
    pub fn root(self) -> Option<&'t str> {
        self.field(3)
    }

    /// Where it is, with octal escapes: to be compared with what needs none.
    #[must_use]
    pub fn raw_place(self) -> Option<&'t str> {
        self.field(4)
    }

    /// Where it is.
    #[must_use]
    pub fn place(self) -> Option<PathBuf> {
        self.raw_place().map(|place| unescaped(place.as_bytes()))
    }

    /// Its own options, with commas between.
    #[must_use]
    pub fn options(self) -> Option<&'t str> {
        self.field(5)
    }

    /// What is mounted. Before it are as many fields as there are groups of propagation.
    #[must_use]
    pub fn filesystem(self) -> Option<MountedFilesystem<'t>> {
        let (_, filesystem) = self.0.split_once(" - ")?;
        let mut fields = filesystem.split(' ');
        Some(MountedFilesystem { fstype: fields.next()?, options: fields.nth(1)? })
    }

    fn field(self, index: usize) -> Option<&'t str> {
        self.0.split(' ').nth(index)
    }
}

/// A path of the table with its `\040` and the like turned back.
#[must_use]
pub fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = (*byte == b'\\').then(|| after.get(..3)).flatten();
        let octal = octal.and_then(|o| u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok());
        match octal {
            Some(byte) => (path.push(byte), rest = &after[3..]).1,
            None => (path.push(*byte), rest = after).1,
        }
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let table =
            "36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 shared:2 - proc none rw,hidepid=2\n36 35\n";
        let mounts: Vec<MountInfo<'_>> = MountInfo::all(table).collect();
        let mount = mounts[0];
        assert_eq!((mount.id(), mount.parent(), mount.root()), (Some(36), Some(35), Some("/mnt1")));
        assert_eq!((mount.raw_place(), mount.place()), (Some("/a\\040b"), Some("/a b".into())));
        assert_eq!(mount.options(), Some("rw,noatime"));
        let found = MountedFilesystem { fstype: "proc", options: "rw,hidepid=2" };
        assert_eq!(mount.filesystem(), Some(found));
        assert_eq!((mounts[1].place(), mounts[1].filesystem()), (None, None));
    }

    #[test]
    fn escapes_are_turned_back() {
        assert_eq!(unescaped(br"/a\040b\134"), PathBuf::from(r"/a b\"));
        assert_eq!(unescaped(br"/a\9"), PathBuf::from(r"/a\9"));
    }
}

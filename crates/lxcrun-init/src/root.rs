//! Paths of an image, resolved so that nothing in the image can lead out of it.
//!
//! An image may be full of hostile links, and its files may change while we look. So the kernel is asked to resolve a
//! path as if our root were the only one (openat2(2), `RESOLVE_IN_ROOT`). Where directories are missing, or the kernel knows
//! no such thing (before Linux 5.6), the path is walked one component at a time, from descriptor to descriptor, never
//! following a link in the kernel: `..` goes back along the way that we came, an absolute link starts again at the root,
//! and what is found is held open.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat, statat,
};
use rustix::io::{Errno, Result};

/// Links in one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// What to do when the path does not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Fail with `ENOENT`.
    Fail,
    /// Make directories.
    Directory,
    /// Make directories and, for the last component, an empty file.
    File,
}

/// The container's root directory.
pub struct Root(OwnedFd);

impl Root {
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Opens the process's own root, after it has become the container's.
    pub fn current() -> Result<Self> {
        rustix::fs::open("/", path_flags() | OFlags::DIRECTORY, Mode::empty()).map(Self)
    }

    /// Finds `path` and returns an `O_PATH` descriptor of it.
    pub fn resolve(&self, path: &Path, missing: Missing) -> Result<OwnedFd> {
        match self.find_or_make(path, missing, ResolveFlags::empty()) {
            Err(e) if e != Errno::NOENT || missing != Missing::Fail => self.walk(path, missing, MAX_LINKS),
            found => found,
        }
    }

    /// The same, for a path that must not go through any link.
    pub fn resolve_plain(&self, path: &Path, missing: Missing) -> Result<OwnedFd> {
        match self.find_or_make(path, missing, ResolveFlags::NO_SYMLINKS) {
            Err(e) if e != Errno::NOENT || missing != Missing::Fail => self.walk(path, missing, 0),
            found => found,
        }
    }

    /// What is there, or what can be made in the directory that is.
    fn find_or_make(&self, path: &Path, missing: Missing, more: ResolveFlags) -> Result<OwnedFd> {
        let not_there = match self.find(path, more) {
            Err(Errno::NOENT) if missing != Missing::Fail => Errno::NOENT,
            found => return found,
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(not_there) };
        let parent = self.find(parent, more)?;
        make(parent.as_fd(), name, missing == Missing::File)?;
        let made = openat(&parent, name, path_flags(), Mode::empty())?;
        // A link that leads nowhere.
        match FileType::from_raw_mode(rustix::fs::fstat(&made)?.st_mode) {
            FileType::Symlink => Err(not_there),
            _ => Ok(made),
        }
    }

    /// What is there, if the kernel finds it without a magic link: those of /proc lead anywhere.
    fn find(&self, path: &Path, more: ResolveFlags) -> Result<OwnedFd> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        openat2(&self.0, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
    }

    fn walk(&self, path: &Path, missing: Missing, max_links: usize) -> Result<OwnedFd> {
        let mut todo = components(path);
        let mut stack: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                stack.pop();
                continue;
            }
            let here = stack.last().map_or(self.0.as_fd(), AsFd::as_fd);
            let next = match openat(here, &name, path_flags(), Mode::empty()) {
                Err(Errno::NOENT) if missing != Missing::Fail => {
                    make(here, &name, missing == Missing::File && todo.is_empty())?;
                    openat(here, &name, path_flags(), Mode::empty())?
                }
                found => found?,
            };
            let stat = rustix::fs::fstat(&next)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                stack.push(next);
                continue;
            }
            links += 1;
            if links > max_links {
                return Err(Errno::LOOP);
            }
            let target = OsString::from_vec(readlinkat(&next, "", Vec::new())?.into_bytes());
            if target.as_bytes().first() == Some(&b'/') {
                stack.clear();
            }
            for component in components(Path::new(&target)).into_iter().rev() {
                todo.push_front(component);
            }
        }
        match stack.pop() {
            Some(fd) => Ok(fd),
            None => self.0.try_clone().map_err(|_| Errno::MFILE),
        }
    }

    /// Finds the directory of `path`, making it if need be, and returns it with the last component.
    pub fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = self.resolve(path.parent().unwrap_or(Path::new("/")), Missing::Directory)?;
        Ok((parent, name))
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn path_flags() -> OFlags {
    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// The components still to be walked: names and `..`.
fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn make(parent: BorrowedFd<'_>, name: &OsStr, file: bool) -> Result<()> {
    let made = if file {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    } else {
        mkdirat(parent, name, Mode::from_raw_mode(0o755))
    };
    match made {
        // Somebody else was faster: what it is shows when it is opened.
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// Whether `name` in `directory` is there, without following it.
pub fn exists(directory: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A root with hostile links in a directory of its own, and the inode of what `path` resolves to.
    fn resolve(path: &str) -> Result<u64> {
        let dir = std::env::temp_dir().join(format!("lxcrun-root-{}-{}", std::process::id(), path.len()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        std::fs::write(dir.join("etc/passwd"), "inside").unwrap();
        symlink("/etc", dir.join("absolute")).unwrap();
        symlink("../../../../../etc", dir.join("up")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = Root::new(rustix::fs::open(&dir, flags, Mode::empty()).unwrap());
        let inside = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(dir.join("etc/passwd")).unwrap());
        let found =
            root.resolve(Path::new(path), Missing::Fail).map(|fd| rustix::fs::fstat(fd).unwrap().st_ino);
        std::fs::remove_dir_all(&dir).unwrap();
        found.inspect(|ino| assert_eq!(*ino, inside))
    }

    #[test]
    fn what_is_missing_is_made_inside_also_through_links() {
        let dir = std::env::temp_dir().join(format!("lxcrun-root-made-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        symlink("/etc", dir.join("link")).unwrap();
        symlink("/etc/target", dir.join("dangling")).unwrap();
        symlink("../../../../etc/below/file", dir.join("deep")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = Root::new(rustix::fs::open(&dir, flags, Mode::empty()).unwrap());
        let make = |path: &str, missing| root.resolve(Path::new(path), missing).map(drop);

        make("/link/one", Missing::Directory).unwrap();
        make("/link/two/three", Missing::Directory).unwrap();
        make("/link/file", Missing::File).unwrap();
        make("/dangling", Missing::Directory).unwrap();
        make("/deep", Missing::File).unwrap();
        assert!(["one", "two/three", "target", "below"].iter().all(|d| dir.join("etc").join(d).is_dir()));
        assert!(["file", "below/file"].iter().all(|f| dir.join("etc").join(f).is_file()));
        assert_eq!(make("/etc/none", Missing::Fail), Err(Errno::NOENT));
        assert_eq!(root.resolve_plain(Path::new("/link/x"), Missing::Directory).unwrap_err(), Errno::LOOP);
        assert!(!dir.join("etc/x").exists());
        assert_eq!(make("/link/file/x", Missing::Directory), Err(Errno::NOTDIR));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn no_link_leads_out() {
        resolve("/etc/passwd").unwrap();
        resolve("/absolute/passwd").unwrap();
        resolve("/up/passwd").unwrap();
        resolve("../../../../../../../etc/passwd").unwrap();
        assert_eq!(resolve("/loop/x"), Err(Errno::LOOP));
    }
}

//! Users by name, from the container's own files.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};

/// Nobody has as many users as would fill this: a larger file is a mistake or an attack.
const MAX_FILE: u64 = 16 << 20;

/// Who a program runs as, in numbers.
///
/// ```
/// use execdriver::User;
///
/// let root = User::default();
/// assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// More groups.
    pub additional_gids: Vec<u32>,
    /// The home directory, `/` when nobody says.
    pub home: String,
}

impl Default for User {
    fn default() -> Self {
        Self { uid: 0, gid: 0, additional_gids: Vec::new(), home: "/".into() }
    }
}

/// A container's /etc/passwd and /etc/group.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads both below `root`; an image without them has no names. No link in them leads out of `root`, and nothing
    /// but a regular file is opened: an image may be anybody's.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { passwd: read_in(&root, "etc/passwd")?, group: read_in(&root, "etc/group")? })
    }

    /// Who `wanted` is: nothing, a name, `uid`, `uid:gid`, `name:group`. A number needs no entry.
    pub(crate) fn find(&self, wanted: &str) -> Result<User, String> {
        let (name, group) = match wanted.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
            None => (wanted, None),
        };
        let name = if name.is_empty() { "0" } else { name };
        let number = number(name)?;
        let entry = self.users().find(|u| number.map_or(u.name == name, |uid| u.uid == uid));
        let mut user = match (&entry, number) {
            (Some(entry), _) => User {
                uid: entry.uid,
                gid: entry.gid,
                additional_gids: self.groups_of(entry.name, entry.gid),
                home: if entry.home.is_empty() { "/".into() } else { entry.home.into() },
            },
            (None, Some(uid)) => User { uid, ..User::default() },
            (None, None) => return Err(format!("the container's /etc/passwd has no user {name:?}")),
        };
        if let Some(group) = group {
            user.gid = self.group(group)?;
            // Who names a group wants no others.
            user.additional_gids.clear();
        }
        Ok(user)
    }

    /// Adds groups, by name or number.
    pub(crate) fn add_groups(&self, user: &mut User, groups: &[String]) -> Result<(), String> {
        for group in groups {
            let gid = self.group(group)?;
            if !user.additional_gids.contains(&gid) {
                user.additional_gids.push(gid);
            }
        }
        Ok(())
    }

    /// The number of a group.
    fn group(&self, wanted: &str) -> Result<u32, String> {
        if let Some(gid) = number(wanted)? {
            return Ok(gid);
        }
        let found = self.groups().find(|g| g.name == wanted).map(|g| g.gid);
        found.ok_or_else(|| format!("the container's /etc/group has no group {wanted:?}"))
    }

    fn groups_of(&self, user: &str, own: u32) -> Vec<u32> {
        let member = |g: &Group<'_>| g.gid != own && g.members.split(',').any(|m| m == user);
        let mut gids: Vec<u32> = self.groups().filter(member).map(|g| g.gid).collect();
        gids.sort_unstable();
        gids.dedup();
        gids
    }

    /// Its well-formed lines: passwd(5).
    fn users(&self) -> impl Iterator<Item = Entry<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, uid, gid, _) =
                (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next());
            Some(Entry {
                name,
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: fields.next().unwrap_or_default(),
            })
        })
    }

    /// Its well-formed lines: group(5).
    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
            Some(Group { name, gid: gid.parse().ok()?, members: fields.next().unwrap_or_default().trim() })
        })
    }
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// The number that `text` is; none when it is a name, an error when it can't be anybody's number.
fn number(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    // The last one means "no change" to the kernel.
    match text.parse::<u32>() {
        Ok(number) if number != u32::MAX => Ok(Some(number)),
        _ => Err(format!("{text} is above the highest number of a user or group")),
    }
}

fn read_in(root: impl AsFd, path: &str) -> io::Result<String> {
    // Without waiting: a FIFO in the place of the file must not stop us.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = match openat2(root, path, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        opened => opened.map_err(|e| named(path, &io::Error::from(e)))?,
    };
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(named(path, &io::Error::other("is no regular file")));
    }
    let mut content = Vec::new();
    File::from(fd).take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(named(path, &io::Error::other("is larger than 16 MiB")));
    }
    // Names in other encodings are nobody that could be asked for; their neighbours still are.
    Ok(String::from_utf8_lossy(&content).into_owned())
}

fn named(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("/{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::os::unix::fs::symlink;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:33:web:/var/www:/bin/false\n\
                     twin:x:33:44::/:\nhomeless:x:50:50\n7up:x:77:77::/seven:\n"
                .into(),
            group: "root:x:0:\nwww:x:33:\nlogs:x:40:other,www\nweb:x:41:www\nbad:x:y:www\n".into(),
        }
    }

    fn user(wanted: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        accounts().find(wanted).map(|u| (u.uid, u.gid, u.additional_gids, u.home))
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let www = (33, 33, vec![40, 41], "/var/www".to_owned());
        assert_eq!(user("www"), Ok(www.clone()));
        assert_eq!(user("33"), Ok(www.clone()));
        assert_eq!(user("www:"), Ok(www));
        assert_eq!(user(""), Ok((0, 0, vec![], "/root".into())));
        assert_eq!(user("www:logs"), Ok((33, 40, vec![], "/var/www".into())));
        assert_eq!(user("1000"), Ok((1000, 0, vec![], "/".into())));
        assert_eq!(user("1000:7"), Ok((1000, 7, vec![], "/".into())));
        assert_eq!(user(":logs"), Ok((0, 40, vec![], "/root".into())));
        assert_eq!(user("homeless"), Ok((50, 50, vec![], "/".into())));
        assert_eq!(user("7up"), Ok((77, 77, vec![], "/seven".into())));
    }

    #[test]
    fn who_is_nobody_is_refused_by_name() {
        for (wanted, named) in [
            ("nobody", "nobody"),
            ("www:none", "none"),
            ("4294967295", "4294967295"),
            ("-1", "-1"),
            ("0:-1", "-1"),
        ] {
            assert!(user(wanted).unwrap_err().contains(named), "{wanted}");
        }
    }

    #[test]
    fn more_groups_are_added_once() {
        let more = ["logs".to_owned(), "7".to_owned(), "7".to_owned()];
        let mut www = accounts().find("www").unwrap();
        accounts().add_groups(&mut www, &more).unwrap();
        assert_eq!(www.additional_gids, [40, 41, 7]);
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/real"), "inside:x:5:5::/:\n").unwrap();
        symlink("/etc/passwd", dir.path().join("etc/group")).unwrap();
        symlink("../../../../etc/real", dir.path().join("etc/passwd")).unwrap();
        let accounts = Accounts::read(dir.path()).unwrap();
        assert_eq!(accounts.find("inside").unwrap().uid, 5);
        assert!(accounts.find("root").is_err());
    }

    #[test]
    fn a_fifo_does_not_stop_us() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let path = dir.path().join("etc/passwd");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(Accounts::read(dir.path()).unwrap_err().to_string().contains("no regular file"));
    }
}

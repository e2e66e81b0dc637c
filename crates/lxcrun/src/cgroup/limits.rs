//! `linux.resources`: each setting becomes writes to files, in an order that the kernel accepts.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::devices::{self, Rule};
use super::{Cgroup, Layout, NO_CGROUP, read, v1, v2};
use crate::error::{Context, refuse};
use crate::{Result, rootless, systemd};

const MEMORY_LIMIT: &str = "linux.resources.memory.limit";

/// How long processors may take to return memory that they don't use: far longer than they do.
const LONGEST_RETURN: Duration = Duration::from_millis(50);

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// For instance `linux.resources.memory.limit`.
    pub field: &'static str,
    pub controller: Cow<'static, str>,
    pub file: String,
    /// Lines of it are written one by one: that is how the kernel takes lists.
    pub value: String,
    /// A file that only some kernels have, with a value that is the default anyway.
    pub optional: bool,
}

impl Setting {
    pub(super) fn new(
        field: &'static str,
        controller: impl Into<Cow<'static, str>>,
        file: impl Into<String>,
        value: impl std::fmt::Display,
    ) -> Self {
        let controller = controller.into();
        Self { field, controller, file: file.into(), value: format!("{value}"), optional: false }
    }

    pub(super) fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// What the kernel would never see: nothing is written for no line, and each of several takes the place of the one
    /// before. Files of version 2 by their names may be lists.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let Self { controller, file, value, .. } = self;
        if file.contains(|c: char| c == '/' || c.is_control()) {
            return Err(format!("{file:?} is no file of a cgroup"));
        }
        if value.trim().is_empty() {
            return Err(format!("{file} has no value"));
        }
        if controller != "unified" && value.lines().count() > 1 {
            return Err(format!("{value:?} has more than one line"));
        }
        Ok(())
    }
}

/// `hugepageLimits`, by the ends of the names of the files for what is used, and for what is reserved.
pub(super) fn hugepage_settings(
    resources: &LinuxResources,
    [used, reserved]: [&str; 2],
) -> impl Iterator<Item = Setting> {
    resources.hugepage_limits().iter().flatten().flat_map(move |limit| {
        let set = |file: &str| {
            let file = format!("hugetlb.{}.{file}", limit.page_size());
            Setting::new("linux.resources.hugepageLimits", "hugetlb", file, limit.limit())
        };
        [set(used), set(reserved).optional()]
    })
}

impl Cgroup {
    /// Has the kernel take what is free out of the lists of recently used pages, where it stays charged. It waits for every
    /// processor. Version 1 alone has a file for that, and not in every kernel: it is a favour, and no limit depends on it.
    pub(crate) fn uncharge_freed(&self) {
        if let Some((directory, false)) = self.directory("memory") {
            let _ = super::write(&directory, "memory.force_empty", "0");
        }
    }

    /// Applies everything that `resources` asks for, and nothing else. Rules for devices take the place of all before.
    pub(crate) fn apply(&self, resources: &LinuxResources) -> Result<()> {
        if self.is_none() {
            return self.refuse_limits(resources);
        }
        let mut settings = self.settings(resources)?;
        let by_program = self.layout() == Layout::Unified && takes_device_rules();
        let rules = resources.devices().as_deref().filter(|_| by_program);
        self.tell_systemd(&mut settings, rules.map(|rules| (rules, &[][..])))?;
        self.write_all(&settings)?;
        rules.map_or(Ok(()), |rules| self.restrict_devices(rules))
    }

    /// The writes for `resources`, without rules for devices of version 2.
    pub(super) fn settings(&self, resources: &LinuxResources) -> Result<Vec<Setting>> {
        let settings = match self.layout() {
            Layout::Unified => v2::settings(Some(self), resources),
            Layout::Legacy if takes_device_rules() => v1::settings(self, resources),
            Layout::Legacy => v1::settings(self, &without_devices(resources)),
            Layout::None if *resources == LinuxResources::default() => Ok(Vec::new()),
            Layout::None => {
                Err(("linux.resources", "this host has no cgroup file system mounted".to_owned()))
            }
        };
        let settings = settings.map_err(|(field, reason)| refuse(&self.id, field, reason))?;
        for setting in &settings {
            setting.check().map_err(|reason| refuse(&self.id, setting.field, reason))?;
        }
        Ok(settings)
    }

    pub(super) fn write_all(&self, settings: &[Setting]) -> Result<()> {
        // The kernel checks some values against others, quota against burst or memory against memory and swap: what it
        // refuses at first is set again when everything else is.
        let mut refused = Vec::new();
        let mut files = LastFile::default();
        for setting in settings {
            match self.set(setting, &mut files) {
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => refused.push(setting),
                Err(e) => return Err(self.explain(setting, &e)),
                Ok(()) => {}
            }
        }
        for setting in refused {
            self.set(setting, &mut files).map_err(|e| self.explain(setting, &e))?;
        }
        Ok(())
    }

    /// Without a cgroup there are no limits. Rules for devices are kept all the same: in a user namespace there are only
    /// those devices that the runtime has bound.
    fn refuse_limits(&self, resources: &LinuxResources) -> Result<()> {
        let asked = match v2::settings(None, &without_devices(resources)) {
            Ok(settings) => settings.first().map(|setting| setting.field),
            Err((field, _)) => Some(field),
        };
        asked.map_or(Ok(()), |field| Err(refuse(&self.id, field, NO_CGROUP)))
    }

    /// systemd writes what it knows of a unit whenever it likes: so it has to know. What it can't know exactly is set as it
    /// knows it. Rules for `devices` come with those that are last.
    pub(super) fn tell_systemd(
        &self,
        settings: &mut [Setting],
        devices: Option<(&[LinuxDeviceCgroup], &[Rule])>,
    ) -> Result<()> {
        let Some(unit) = &self.unit else { return Ok(()) };
        let now = |file: &str| read(&self.directory("cpu")?.0, file).ok();
        for setting in settings.iter_mut().filter(|setting| setting.file == "cpu.max") {
            if let Some(rounded) = systemd::rounded_quota(&setting.value, now("cpu.max").as_deref()) {
                setting.value = rounded;
            }
        }
        let files = settings.iter().map(|s| (s.file.as_str(), s.value.as_str()));
        let mut properties =
            systemd::of_files(files, now).map_err(|reason| refuse(&self.id, "linux.resources", reason))?;
        if let Some((rules, last)) = devices {
            let allowed = devices::for_systemd(rules, last);
            properties
                .extend(systemd::of_devices(allowed.map_err(|(f, reason)| refuse(&self.id, f, reason))?));
        }
        unit.set(&self.id, &properties)
    }

    fn restrict_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        let Some((directory, _)) = self.directory("devices") else { return Ok(()) };
        devices::attach(&directory, rules, &[]).map_err(|(field, reason)| refuse(&self.id, field, reason))
    }

    /// Has systemd leave devices to what a hook has put in the place of our program, for instance to add a graphics card: of
    /// that it knows nothing, and would take it away again at its next reload.
    pub(crate) fn leave_devices_to_hooks(&self) -> Result<()> {
        let Some(unit) = self.unit.as_ref().filter(|_| takes_device_rules()) else { return Ok(()) };
        let Some((directory, true)) = self.directory("devices") else { return Ok(()) };
        let ours = devices::is_attached(&directory);
        if ours.at(&self.id, format!("cannot ask for the programs of {}", directory.display()))? {
            return Ok(());
        }
        unit.set(&self.id, &systemd::of_devices(None))
    }

    /// Writes a setting: for a container in a unit of systemd also to the unit's own cgroup, so that both say the same.
    pub(super) fn set(&self, setting: &Setting, files: &mut LastFile) -> io::Result<()> {
        let Setting { field, controller, file, value, optional, .. } = setting;
        let Some((directory, _)) = self.directory(controller) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such hierarchy"));
        };
        for directory in self.outside(controller).iter().chain([&directory]) {
            for line in value.lines() {
                match files.write(&directory.join(file), line) {
                    Err(e) if *optional && e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) if *field == MEMORY_LIMIT && e.kind() == io::ErrorKind::ResourceBusy => {
                        write_when_returned(directory, file, line)?;
                    }
                    written => written?,
                }
            }
        }
        Ok(())
    }

    /// The error of a setting, with what may help.
    fn explain(&self, setting: &Setting, e: &io::Error) -> crate::Error {
        refuse(&self.id, setting.field, self.why_refused(setting, e))
    }

    /// Why the kernel does not take a setting.
    pub(super) fn why_refused(&self, setting: &Setting, e: &io::Error) -> String {
        let Setting { field, controller, file, value, .. } = setting;
        let Some((directory, unified)) = self.directory(controller) else {
            return format!("this host has no {controller} cgroup");
        };
        let path = directory.join(file);
        let path = path.display();
        match e.raw_os_error() {
            Some(libc::ENOENT) => match why_missing(&directory, file, unified) {
                Some(reason) => reason,
                None => format!("this kernel has no {file}: {path}: no such file or directory"),
            },
            Some(libc::EBUSY) if *field == MEMORY_LIMIT => {
                let used = read(&directory, "memory.usage_in_bytes").unwrap_or_default();
                format!("cannot set a limit of {value} bytes, {used} are in use ({path})")
            }
            _ => format!("cannot write {value:?} to {path}: {e}"),
        }
    }
}

/// Writes a limit of memory that the kernel has found too low. On version 1 it charges ahead for each processor, and other
/// processors return what they don't use in their own time, which nothing tells: so writing is repeated.
fn write_when_returned(directory: &Path, file: &str, limit: &str) -> io::Result<()> {
    let end = Instant::now() + LONGEST_RETURN;
    loop {
        match super::write(directory, file, limit) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {}
            written => return written,
        }
    }
}

/// The kernel wants rights over the whole host for them. Whoever lacks these can give no more than their own rights in files
/// either: their containers can't make nodes, and open only what is open to them anyway.
fn takes_device_rules() -> bool {
    !rootless::is_ordinary_user()
}

fn without_devices(resources: &LinuxResources) -> LinuxResources {
    let mut rest = resources.clone();
    rest.set_devices(None);
    rest
}

/// The file that was written last, still open: rules for devices are a dozen writes to one.
#[derive(Default)]
pub(super) struct LastFile(Option<(PathBuf, File)>);

impl LastFile {
    fn write(&mut self, path: &Path, line: &str) -> io::Result<()> {
        if let Some((open, file)) = &mut self.0
            && open == path
        {
            return file.write_all(line.as_bytes());
        }
        let file = File::options().write(true).open(path)?;
        self.0.insert((path.to_owned(), file)).1.write_all(line.as_bytes())
    }
}

/// Why a cgroup of version 2 lacks a file that others have.
fn why_missing(directory: &Path, file: &str, unified: bool) -> Option<String> {
    if !unified {
        return None;
    }
    let controller = file.split('.').next().unwrap_or_default();
    let has = |list: &Path| {
        std::fs::read_to_string(list).is_ok_and(|text| text.split_whitespace().any(|c| c == controller))
    };
    if has(&directory.join("cgroup.controllers")) {
        return None;
    }
    let parent = directory.parent()?;
    if has(&parent.join("cgroup.controllers")) {
        // The usual reason: a cgroup with processes of its own can't have controllers enabled for those below.
        let file = parent.join("cgroup.subtree_control");
        return Some(format!("the {controller} controller is not enabled in {}", file.display()));
    }
    // crun's words.
    let parent = parent.display();
    Some(format!("the requested cgroup controller `{controller}` is not available in {parent}"))
}

//! Docker's `--mount` syntax, for binds and tmpfs.

use std::path::PathBuf;

use anyhow::{Context, bail};
use lxcrun::oci_spec::runtime::Mount;

/// Options beside Docker's own words are those of mount(8).
pub fn parse_mount(text: &str) -> anyhow::Result<Mount> {
    let mut kind = "bind".to_owned();
    let (mut source, mut destination) = (None, None);
    let mut options = Vec::new();
    let mut recursive = true;
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
        match (key, value) {
            ("type", Some(value)) => kind = value.to_owned(),
            ("source" | "src", Some(value)) => source = Some(std::path::absolute(value)?),
            ("destination" | "dst" | "target", Some(value)) => destination = Some(PathBuf::from(value)),
            ("readonly" | "ro", value) => options.extend(is_true(part, value)?.then(|| "ro".to_owned())),
            ("bind-nonrecursive", value) => recursive = !is_true(part, value)?,
            ("bind-propagation", Some(value)) => options.push(value.to_owned()),
            ("tmpfs-size", Some(value)) => options.push(format!("size={value}")),
            ("tmpfs-mode", Some(value)) => options.push(format!("mode={value}")),
            _ => options.push(part.to_owned()),
        }
    }
    let destination = destination.context("destination= is missing")?;
    let mut mount = Mount::default();
    mount.set_destination(destination);
    match kind.as_str() {
        "bind" => {
            source.as_ref().context("source= is missing")?;
            if let Some(data) = options.iter().find(|option| option.contains('=')) {
                bail!("{data} means nothing for a bind mount");
            }
            options.insert(0, if recursive { "rbind" } else { "bind" }.into());
            mount.set_typ(Some("bind".into())).set_source(source);
        }
        "tmpfs" => {
            if let Some(source) = source {
                bail!("source={}: a tmpfs has none", source.display());
            }
            mount.set_typ(Some("tmpfs".into())).set_source(Some("tmpfs".into()));
        }
        other => bail!("type={other} is neither bind nor tmpfs"),
    }
    mount.set_options(Some(options));
    Ok(mount)
}

/// Whether a switch is on, which it is without a value, too.
fn is_true(part: &str, value: Option<&str>) -> anyhow::Result<bool> {
    match value {
        None | Some("1" | "true") => Ok(true),
        Some("0" | "false") => Ok(false),
        Some(_) => bail!("{part}: is neither true nor false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<String> {
        let mount = parse_mount(&format!("{text},destination=/d")).unwrap();
        mount.options().clone().unwrap()
    }

    #[test]
    fn words_of_docker_become_options() {
        assert_eq!(options("source=/s"), ["rbind"]);
        assert_eq!(options("source=/s,readonly=true,bind-propagation=rslave"), ["rbind", "ro", "rslave"]);
        assert_eq!(options("src=/s,readonly=false,ro=0,bind-nonrecursive,nosuid"), ["bind", "nosuid"]);
        assert_eq!(options("type=tmpfs,tmpfs-size=64m,tmpfs-mode=700"), ["size=64m", "mode=700"]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (text, reason) in [
            ("source=/s", "destination= is missing"),
            ("destination=/d", "source= is missing"),
            ("source=/s,destination=/d,readonly=maybe", "readonly=maybe: is neither true nor false"),
            ("source=/s,destination=/d,tmpfs-size=1m", "size=1m means nothing for a bind mount"),
            ("source=/s,destination=/d,volume-nocopy=1", "volume-nocopy=1 means nothing for a bind mount"),
            ("type=volume,source=s,destination=/d", "type=volume is neither bind nor tmpfs"),
        ] {
            assert_eq!(parse_mount(text).unwrap_err().to_string(), reason, "{text}");
        }
    }
}

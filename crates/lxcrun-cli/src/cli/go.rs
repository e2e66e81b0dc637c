//! Options as runc's library reads them: with one dash or two, and `=true` or `=false` behind those that take no value.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// The same words with options as clap reads them. What comes after the first word that is no option is left alone.
pub fn as_go_reads(command: &Command, words: Vec<OsString>) -> Vec<OsString> {
    // The options of all commands are made for that: only where it can matter.
    if !words.iter().skip(1).any(|word| word.to_str().is_some_and(may_be_gos)) {
        return words;
    }
    let mut command = command.clone();
    command.build();
    let mut command = &command;
    let mut read: Vec<OsString> = Vec::new();
    let mut words = words.into_iter();
    read.extend(words.next());
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        if !text.starts_with('-') || text == "-" || text == "--" {
            let chosen = command.find_subcommand(text);
            read.push(word.clone());
            match chosen {
                Some(chosen) => command = chosen,
                None => break,
            }
            continue;
        }
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let Some(option) = find(command, name) else {
            read.push(word);
            continue;
        };
        let long = option.get_long().unwrap_or_default();
        let plain = OsString::from(format!("--{long}"));
        match (takes_value(option), value.and_then(truth)) {
            (false, Some(true)) => read.push(plain),
            // The last one counts.
            (false, Some(false)) => read.retain(|earlier| *earlier != plain),
            (_, _) if name.starts_with("--") || name.len() == 2 => read.push(word.clone()),
            (_, _) => read.push(value.map_or(plain, |value| format!("--{long}={value}").into())),
        }
        if takes_value(option) && value.is_none() {
            read.extend(words.next());
        }
    }
    read.extend(words);
    read
}

fn may_be_gos(word: &str) -> bool {
    let one_dash = word.starts_with('-') && !word.starts_with("--") && word.len() > 2;
    one_dash
        || word.split_once('=').is_some_and(|(name, value)| name.starts_with('-') && truth(value).is_some())
}

/// Go's strconv.ParseBool.
fn truth(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The option of this name, with its dashes.
fn find<'c>(command: &'c Command, name: &str) -> Option<&'c Arg> {
    let bare = name.strip_prefix("--").or(name.strip_prefix('-'))?;
    let mut characters = bare.chars();
    let short = characters.next().filter(|_| characters.next().is_none());
    command.get_arguments().find(|option| {
        option.get_long().is_some_and(|long| long == bare) || short.is_some() && option.get_short() == short
    })
}

fn takes_value(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Set | ArgAction::Append)
}

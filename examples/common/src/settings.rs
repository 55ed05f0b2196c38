//! What a run must share with the one that it continues, by the names that its user gave them.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Flags that set a number of a plan or of its schedule.
const FLAGS: [(&str, &str); 8] = [
    ("float_epochs", "--float-epochs"),
    ("batch_size", "--batch-size"),
    ("epoch_batches", "--epoch-batches"),
    ("pace", "--prune-pace"),
    ("prune_epochs", "--prune-epochs"),
    ("recovery_steps", "--recovery-steps"),
    ("recovery", "--recovery"),
    ("coordinate_type", "--coordinates"),
];

/// Values by name: a flag's begins with dashes, others are numbers of the preset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Adds a value.
    pub fn set(&mut self, name: &str, value: impl Display) {
        self.0.insert(name.into(), value.to_string());
    }

    /// Adds the value of a flag that may be left out.
    pub fn flag(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Adds all plain values of a configuration, so that none is forgotten; those in it that are
    /// configurations of their own are the caller's.
    pub fn numbers(&mut self, config: &impl Serialize) {
        let Ok(Value::Object(values)) = serde_json::to_value(config) else {
            unreachable!("a configuration is a struct of plain data");
        };
        for (field, value) in values {
            let flag = FLAGS.iter().find(|(known, _)| *known == field);
            let name = flag.map_or(field.as_str(), |(_, flag)| flag);
            match value {
                Value::String(text) => self.set(name, text.to_lowercase()),
                Value::Bool(_) | Value::Number(_) => self.set(name, value),
                Value::Null | Value::Array(_) | Value::Object(_) => {}
            }
        }
    }

    /// Adds all of some others.
    pub fn extend(&mut self, others: &Self) {
        self.0.extend(others.0.clone());
    }

    /// What a checkpoint keeps of them.
    pub fn fingerprint(&self) -> String {
        serde_json::to_string(self).expect("texts are plain data")
    }
}

/// Why a checkpoint does not belong to a run: what is another value there, in its fingerprint, than
/// here. Where flags differ, numbers that follow from them are left out.
pub(crate) fn difference(checkpoint: &Path, there: &str, here: &str) -> String {
    let read = |text: &str| serde_json::from_str(text).map(|Settings(values)| values);
    let checkpoint = checkpoint.display();
    let (Ok(there), Ok(here)) = (read(there), read(here)) else {
        return format!(
            "{checkpoint} belongs to another run, of another version of this program: {there}"
        );
    };
    let mut names: Vec<&String> = there.keys().chain(here.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| there.get(*name) != here.get(*name));
    let is_flag = |name: &&String| name.starts_with("--") || *name == DATA;
    if names.iter().any(is_flag) {
        names.retain(is_flag);
    }
    let mut text = format!("{checkpoint} belongs to another run; what differs, there → here:");
    for name in names {
        let value = |values: &BTreeMap<String, String>| {
            let value = values.get(name).map(String::as_str);
            value.unwrap_or("none").to_string()
        };
        let _ = write!(text, "\n  {name}: {} → {}", value(&there), value(&here));
    }
    text + "\ngive what that run was given, or choose another --out"
}

/// The name of the data.
pub(crate) const DATA: &str = "data";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_hide_what_follows_from_them() {
        let mut there = Settings::default();
        there.set("--preset", "quick");
        there.set("lr", 0.001);
        let mut here = there.clone();
        let said = |there: &Settings, here: &Settings| {
            let [there, here] = [there, here].map(Settings::fingerprint);
            difference(Path::new("run/checkpoint.bpk"), &there, &here)
        };
        here.set("lr", 0.002);
        let text = said(&there, &here);
        assert!(text.contains("\n  lr: 0.001 → 0.002\n"), "{text}");
        here.set("--preset", "paper");
        there.flag("--act-bits", Some(2));
        here.flag("--act-bits", None::<u8>);
        here.set("--width", 0.5);
        let text = said(&there, &here);
        for line in [
            "run/checkpoint.bpk belongs to another run; what differs, there → here:",
            "  --act-bits: 2 → none",
            "  --preset: quick → paper",
            "  --width: none → 0.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        assert!(!text.contains("lr:"), "{text}");
        let text = difference(Path::new("a.bpk"), "seed 1", &there.fingerprint());
        assert!(
            text.contains("another version of this program: seed 1"),
            "{text}"
        );
    }

    #[test]
    fn numbers_have_the_names_of_their_flags() {
        let mut settings = Settings::default();
        let values = serde_json::json!({
            "pace": "Cubic", "lr": 0.1, "epoch_batches": null, "target": {"Bits": 1.0}
        });
        settings.numbers(&values);
        let expected = [("--prune-pace", "cubic"), ("lr", "0.1")];
        let found: Vec<(&str, &str)> = settings
            .0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected);
    }
}

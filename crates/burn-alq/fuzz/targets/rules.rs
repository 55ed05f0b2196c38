//! Files of rules. What is read must be written as the same rules, and match without end of time.

#![no_main]

use burn_alq::Rules;
use burn_alq_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let read = || toml::from_str::<Rules>(text).ok();
    let Some(rules) = bounded(text.len(), read) else {
        return;
    };
    for rule in &rules.weights {
        let _ = rule.pattern.matches("layer1.0.conv2.weight");
    }
    for rule in &rules.activations {
        let _ = rule.pattern.matches("layer1.0.relu");
    }
    let written = toml::to_string(&rules).expect("rules are plain data");
    assert_eq!(
        toml::from_str::<Rules>(&written).expect("what was written"),
        rules
    );
});

//! The variants of a module: one for each of its `target` lines that this machine can run.

use kiln::ir::{ModuleSettings, Target};

use super::report::Verdict;
use crate::output::chain;

/// Returns the settings of a module once for each of its `target` lines, with only that line, and
/// the number of the line.
///
/// Lines that the machine cannot run are left out; `host_has` says which CPU features it has.
///
/// # Errors
///
/// Returns the verdict on the module if no line is left, or if a line has an error.
pub(super) fn variants(
    target: &Target,
    settings: &ModuleSettings,
    host_has: &dyn Fn(&str) -> Option<bool>,
) -> Result<Vec<(usize, ModuleSettings)>, Verdict> {
    if settings.targets.is_empty() {
        return Ok(vec![(0, settings.clone())]);
    }
    let mut variants = Vec::new();
    let mut missing = String::new();
    for (number, line) in settings.targets.iter().enumerate() {
        let one = variant_settings(settings, number);
        if !one.allows(target.triple()) {
            continue;
        }
        let isa = target
            .isa(&one)
            .map_err(|error| Verdict::Failed { reason: format!("line {}: {}", line.line, chain(&error)) })?;
        let wanted = isa.isa_flags().into_iter().filter(|flag| flag.name.starts_with("has_"));
        let wanted = wanted.filter(|flag| flag.as_bool() == Some(true)).map(|flag| flag.name);
        match wanted.into_iter().find(|name| host_has(name) != Some(true)) {
            None => variants.push((number, one)),
            Some(name) => missing = format!("this CPU lacks {name}"),
        }
    }
    if variants.is_empty() { Err(Verdict::Skipped { reason: missing }) } else { Ok(variants) }
}

/// Returns the settings with only `target` line `number`. Settings without such lines are returned
/// as they are.
pub(super) fn variant_settings(settings: &ModuleSettings, number: usize) -> ModuleSettings {
    let targets = settings.targets.get(number).cloned().into_iter().collect();
    ModuleSettings { targets, ..settings.clone() }
}

#[cfg(test)]
mod tests {
    use kiln::image;
    use kiln::ir::TargetLine;

    use super::*;

    fn settings(lines: &[&[&str]]) -> ModuleSettings {
        let triple = Target::host().triple().architecture.to_string();
        let setting = |name: &&str| kiln::ir::Setting::new(name, "true");
        let line = |names: &&[&str]| TargetLine {
            triple: triple.clone().into(),
            settings: names.iter().map(setting).collect(),
            line: 1,
        };
        ModuleSettings { targets: lines.iter().map(line).collect(), ..ModuleSettings::default() }
    }

    /// The names of all features that the host's architecture may have.
    fn features() -> Vec<&'static str> {
        let isa = Target::host().isa(&ModuleSettings::default()).unwrap();
        isa.isa_flags().into_iter().map(|flag| flag.name).filter(|name| name.starts_with("has_")).collect()
    }

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn every_feature_of_the_code_generator_can_be_detected() {
        let unknown: Vec<_> =
            features().into_iter().filter(|name| image::host_has_feature(name).is_none()).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn a_file_is_skipped_only_if_no_line_fits_the_cpu() {
        let feature = features()[0];
        let (has, lacks) = (|_: &str| Some(true), |name: &str| Some(name != feature));
        let numbers = |lines: &[&[&str]], host_has: &dyn Fn(&str) -> Option<bool>| {
            let variants = variants(&Target::host(), &settings(lines), host_has)?;
            Ok(variants.into_iter().map(|(number, _)| number).collect::<Vec<_>>())
        };
        let skipped = || Verdict::Skipped { reason: format!("this CPU lacks {feature}") };
        assert_eq!(numbers(&[&[feature]], &has), Ok(vec![0]));
        assert_eq!(numbers(&[&[feature]], &lacks), Err(skipped()));
        assert_eq!(numbers(&[&[feature], &[]], &lacks), Ok(vec![1]));
        assert_eq!(numbers(&[&[], &[feature]], &|_| None), Ok(vec![0]));
        assert_eq!(numbers(&[&[feature]], &|_| None), Err(skipped()));
        assert_eq!(numbers(&[], &lacks), Ok(vec![0]));
    }
}

//! Text, binary form and canonical code each keep everything in a module: converted from one to the
//! next, it compiles to the artifact of the original.

use kiln::ir::{Target, print};
use kiln_oracle::forms::{read, same, through_bytes, through_ir, through_text};

use crate::cases::run;
use crate::modules::{self, same_artifact};

#[test]
fn forms() {
    run("forms", 100, case);
}

fn case(seed: u64) -> Result<(), String> {
    let target = Target::host();
    for module in modules::of(seed) {
        let text = through_text(&module, &target)?;
        let bytes = through_bytes(&module, &target)?;
        let ir = through_ir(&module)?;
        // Text, bytes, text: line numbers differ from the module's, and nothing else does.
        let again = through_bytes(&text, &target)?;
        same(&module, &again)?;
        let printed = print(&again).map_err(|error| error.to_string())?;
        if printed != print(&module).map_err(|error| error.to_string())? {
            return Err("bytes are printed otherwise than the module".into());
        }
        same(&text, &read(&printed, &target)?)?;
        let fingerprints = [&text, &bytes, &ir, &again].map(|module| module.fingerprint());
        if fingerprints.iter().any(|fingerprint| *fingerprint != module.fingerprint()) {
            return Err(format!("fingerprints by text, bytes, IR and both: {fingerprints:?}"));
        }
        for (form, other) in [("text", &text), ("bytes", &bytes), ("IR", &ir)] {
            same_artifact(&module, other).map_err(|error| format!("compiled from {form}: {error}"))?;
        }
    }
    Ok(())
}

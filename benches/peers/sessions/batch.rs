//! Many compiled functions, published at once.

use std::time::Instant;

use cranelift_module::{Linkage, Module as _};
use kiln::artifact::Artifact;

use super::function::Peer;
use super::one::{artifacts, free, session};
use super::scale::Scale;
use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

/// The number of functions of a module.
const MODULE: usize = 100;

/// Publishes a batch in a new session or module.
pub(super) fn publish(
    peer: &Peer,
    setup: &Setup,
    scale: Scale,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    let functions = peer.functions(0, scale.batch());
    let single = artifacts(peer, &functions)?;
    let joined = peer.compiler.compile(&peer.modules_of(&functions, MODULE)?)?.artifacts;
    let code = peer.bytes(&functions)?;
    let compiler = peer.compiler.clone().pool(setup.pool.clone());
    let turn = |artifacts: &[Artifact]| {
        let (artifacts, session) = (artifacts.to_vec(), session(&compiler)?);
        let start = Instant::now();
        session.add_artifacts(&artifacts)?;
        let time = start.elapsed();
        functions.iter().try_for_each(|function| function.check(session.jit().address(&function.name)))?;
        Ok(vec![time])
    };
    let count = functions.len();
    let kiln = format!("publish {count} functions at once, kiln");
    let alone = format!("publish {count} functions at once, each a module, kiln");
    let cranelift = format!("define the bytes of {count} functions and finalize, cranelift-jit");
    let contenders = vec![
        Contender::in_parts(&kiln, &[""], || turn(&joined)),
        Contender::in_parts(&alone, &[""], || turn(&single)),
        Contender::in_parts(&cranelift, &[""], || {
            let mut module = peer.module();
            let start = Instant::now();
            let mut ids = Vec::with_capacity(count);
            for (function, bytes) in functions.iter().zip(&code) {
                let id = module.declare_function(&function.name, Linkage::Export, &function.ir.signature)?;
                module.define_function_bytes(id, 16, bytes, &[])?;
                ids.push(id);
            }
            module.finalize_definitions()?;
            let time = start.elapsed();
            for (function, id) in functions.iter().zip(ids) {
                function.check(Some(module.get_finalized_function(id)))?;
            }
            free(module);
            Ok(vec![time])
        }),
    ];
    comparison.add(interleave(setup.rounds, contenders)?);
    comparison.named_ratio("publish at once, cranelift-jit / kiln", &cranelift, &kiln, Goal::AtLeast(5.0));
    comparison.named_ratio(
        "publish at once, cranelift-jit / kiln with each function a module",
        &cranelift,
        &alone,
        Goal::None,
    );
    comparison.note(format!("at once: modules of {MODULE} functions; {} threads", setup.threads));
    Ok(())
}

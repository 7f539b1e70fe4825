//! Background verification: some of the reused modules are compiled again when there is time.

use kiln_backend::{Built, compile};
use kiln_cache::{Entry, Event};

use super::Compiler;
use super::pool::Pool;
use super::verify::{Sample, Samples};

impl Samples {
    /// Compiles the modules and compares the artifacts with what was reused. `compiler` must be the
    /// compiler that chose the modules, or have the same target and store. Differences are reported
    /// to its events, and wrong entries are replaced.
    ///
    /// Returns the number of wrong entries. A module that does not compile counts as a wrong entry.
    pub fn verify(self, compiler: &Compiler) -> usize {
        self.0.into_iter().filter(|sample| !compiler.verify_sample(sample)).count()
    }
}

impl Compiler {
    /// Verifies `samples` when the pool has nothing else to do.
    pub(crate) fn verify_in_background(&self, samples: Samples) {
        if samples.is_empty() {
            return;
        }
        // The clone has no pool, so that work waiting in the pool does not keep the pool alive.
        let compiler = Self { pool: Pool::global(), ..self.clone() };
        let work = move || {
            samples.verify(&compiler);
        };
        self.spawn(work);
    }

    /// Returns whether compiling the module makes the artifact that was reused. If not, quarantines
    /// the entry, and replaces it if the module compiles.
    fn verify_sample(&self, sample: &Sample) -> bool {
        let Sample { module, entry, key } = sample;
        let generator = self.generator(0, module).ok();
        let built = generator.and_then(|generator| compile(&generator.job(module, &[])).ok());
        match built {
            Some(built) if built.artifact == entry.artifact => {
                self.cache.report(&Event::Verified { key, module: &module.name });
                return true;
            }
            Some(Built { artifact, .. }) => {
                self.cache.quarantine(key, &module.name);
                // The lineages that point to the key stay as they are.
                self.cache.store(key, &[], &Entry { artifact, ..entry.clone() }, false);
            }
            None => self.cache.quarantine(key, &module.name),
        }
        false
    }
}

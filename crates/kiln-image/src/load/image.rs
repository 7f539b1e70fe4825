//! An image that is mapped and checked, but not yet bound.
//!
//! All its memory is still read-only and equal to the file, so its checksums can be verified.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use kiln_debug::gdb::Debugger;
use kiln_debug::perf::Kind as Profiler;
use kiln_globals::{KeyRef, Resolve, SlotKey, UnboundError};
#[cfg(feature = "sign")]
use kiln_keys::PublicKey;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::bind::{Loaded, Unwind};
use super::layer::Layer;
use super::mapped::{Code, Mapped, Wanted};
use super::observers::Observers;
use super::origin::Origin;
use super::thread_locals::{ThreadLocals, WithThreadLocals};
use crate::arch::Arch;
use crate::base::{Base, BaseSymbol, ImageId};
use crate::error::LoadError;
use crate::features::missing_features;
use crate::note::LevelRecord;
use crate::read::{BAD_SLOT, Headers, Opened, View, open_image, read_headers, segments, used_part};

/// An image that is mapped and checked, but whose slots are not filled yet. Its functions can be
/// called once it is bound.
#[derive(Debug)]
pub struct Image {
    mapped: Mapped,
    /// The file, which has sections for debuggers.
    file: File,
    /// The file at its path, if it is mapped itself.
    pub(super) origin: Option<Origin>,
    observers: Observers,
    /// The number of the level of the processor whose code is chosen.
    level: u32,
    /// The keys that are known to have signed it.
    #[cfg(feature = "sign")]
    pub(super) signers: Vec<PublicKey>,
    /// The name of its file; empty if it has none.
    name: Box<str>,
    other_bases: bool,
}

impl Image {
    /// Maps the image in the file at `path` and checks it: headers, segments, dynamic section,
    /// note, target, CPU features. The contents of sections are not read; `Image::verify` does
    /// that.
    ///
    /// A path that does not lead to a regular file is refused at once. So is a file whose headers
    /// are not those of an image, or that ends before its segments do. Time and memory are
    /// proportional to the size of the note and do not depend on the rest of the file.
    ///
    /// What is checked is what is loaded. So the image may have been changed as other shared
    /// objects are: by `strip`, `objcopy` or `patchelf`, for example.
    ///
    /// # Changes of the file
    ///
    /// Pages of the file are read when they are used, so **the file must not change while the image
    /// lives**, as with `dlopen`. The kernel does not prevent it, and Rust's types cannot:
    ///
    /// - After the file is truncated, reading a page beyond its new end raises `SIGBUS`, which by
    ///   default ends the process. This happens in safe code too: in [`Loaded::function`] and
    ///   `Image::verify` as well as in the code of the image.
    /// - Bytes that are overwritten in the file may change in memory after they were checked:
    ///   changed code does something else, and a look-up in changed tables may give wrong results
    ///   or panic.
    ///
    /// [`save`](crate::save) replaces a file by renaming, as linkers and package managers do; that
    /// does not change the mapped file, which remains as long as it is mapped. Open a file that
    /// others may write to with [`Image::open_private`].
    ///
    /// # Errors
    ///
    /// [`LoadError::At`], with the path and the reason.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::open_at(path.as_ref(), Wanted::Base)
    }

    /// Opens an image as [`open`](Self::open) does, at an address that the kernel chooses, even if
    /// the image is made for one ([`ImageBase`](crate::ImageBase)). Then nobody who knows the file
    /// knows where its code and data are. All pointers of the image at itself are written when it
    /// is bound, which takes time and memory in proportion to them.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_anywhere(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::open_at(path.as_ref(), Wanted::Any)
    }

    fn open_at(path: &Path, wanted: Wanted) -> Result<Self, LoadError> {
        let opened = open_image(path);
        opened
            .and_then(|Opened { file, metadata, headers }| {
                let origin = Some(Origin::new(path, &metadata));
                let image = Self::map(file, metadata.len(), &headers, wanted)?;
                Ok(Self { origin, ..image }.named(&file_name(path)))
            })
            .map_err(|error| error.at(path))
    }

    /// Copies the image in the file at `path` into memory that nobody can change, and checks it as
    /// [`Image::open`] does. No change of the file has an effect on the image.
    ///
    /// The copy is a sealed `memfd`. Processes do not share its memory, and opening
    /// takes the time to copy it.
    ///
    /// # Errors
    ///
    /// [`LoadError::At`], with the path and the reason; among them [`LoadError::Length`] if the
    /// file was truncated in the meantime.
    pub fn open_private(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        private_copy(path)
            .and_then(|(copy, len, headers)| Self::map(copy, len, &headers, Wanted::Base))
            .map(|image| image.named(&file_name(path)))
            .map_err(|error| error.at(path))
    }

    /// Copies an image that is in memory, and checks it as [`Image::open`] does. The copy is a
    /// sealed `memfd`, as that of [`open_private`](Self::open_private) is.
    ///
    /// # Errors
    ///
    /// The errors of [`Image::open`], without the path.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LoadError> {
        let headers = Headers::of_bytes(bytes)?;
        let len = bytes.len() as u64;
        // Before anything is copied.
        segments(&headers, len)?;
        Self::map(sealed_copy(bytes, len)?, len, &headers, Wanted::Base)
    }

    /// Maps a file of `len` bytes that has these headers, and checks it.
    fn map(file: File, len: u64, headers: &Headers, wanted: Wanted) -> Result<Self, LoadError> {
        let mapped = Mapped::new(&file, headers, segments(headers, len)?, wanted, Code::Now, check_host)?;
        Ok(Self::of(mapped, file))
    }

    /// Makes an image of what was mapped of a file.
    pub(super) fn of(mapped: Mapped, file: File) -> Self {
        let note = mapped.tables().note;
        // Each level has all features of those before it.
        let fits = |level: &LevelRecord| missing_features(note.features_of(level)).next().is_none();
        let count = note.levels().iter().take_while(|level| fits(level)).count() as u32;
        let level = count.saturating_sub(1);
        Self {
            mapped,
            file,
            origin: None,
            observers: Observers::default(),
            level,
            name: Box::default(),
            other_bases: false,
            #[cfg(feature = "sign")]
            signers: Vec::new(),
        }
    }

    /// Sets the name by which layers on this image name it. By default it is that of the file,
    /// without the folder, and empty for [`from_bytes`](Self::from_bytes).
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Sets whether bases are accepted that are not the images that this layer was linked on, but
    /// have their names, and everything that the layer uses: functions of the same types, data of
    /// the same size. So a base can be built again without its layers. By default, the id
    /// must be the same.
    #[must_use]
    pub fn allow_other_bases(mut self, allow: bool) -> Self {
        self.other_bases = allow;
        self
    }

    /// Returns the names and the ids of the images that this one is a layer on, in the
    /// order in which they are loaded. Empty if it is no layer.
    pub fn bases(&self) -> impl ExactSizeIterator<Item = (&str, ImageId)> {
        let note = self.mapped.tables().note;
        note.bases().iter().map(move |base| (note.text(base.name).unwrap_or_default(), ImageId(base.id)))
    }

    /// Returns the id, by which layers name the image.
    pub fn id(&self) -> ImageId {
        self.mapped.id()
    }

    /// Returns the keys of the external slots, in order of the slot array. The list is empty if a
    /// record is malformed; [`Image::bind`] then returns an error.
    pub fn slots(&self) -> &[SlotKey] {
        self.mapped.slots()
    }

    /// Returns the target triple.
    pub fn triple(&self) -> &str {
        self.mapped.triple()
    }

    /// Returns the version of Kiln that linked the image.
    pub fn kiln_version(&self) -> &str {
        let note = self.mapped.tables().note;
        note.text(note.head.kiln_version).unwrap_or_default()
    }

    /// Returns the compilers of the modules, with versions, each once.
    pub fn producers(&self) -> impl Iterator<Item = &str> {
        let note = self.mapped.tables().note;
        note.producers().iter().filter_map(move |&text| note.text(text))
    }

    /// Returns the CPU features that the code may use, by Cranelift's setting names, sorted.
    pub fn features(&self) -> impl Iterator<Item = &str> {
        let note = self.mapped.tables().note;
        note.features().iter().filter_map(move |&text| note.text(text))
    }

    /// Returns the levels of the processor that functions have bodies for, the lowest first; none
    /// if all code is the same for all.
    pub fn cpu_levels(&self) -> impl Iterator<Item = &str> {
        let note = self.mapped.tables().note;
        note.levels().iter().map(move |level| note.text(level.name).unwrap_or_default())
    }

    /// Returns the level whose code will be called: the highest that this machine has all features
    /// of, unless another was [chosen](Self::with_cpu_level).
    pub fn cpu_level(&self) -> Option<&str> {
        self.cpu_levels().nth(self.level as usize)
    }

    /// Chooses the level of the processor whose code will be called.
    ///
    /// # Errors
    ///
    /// [`LoadError::Level`] if the image has no code for it, [`LoadError::Features`] if the machine
    /// lacks some of its features.
    pub fn with_cpu_level(mut self, name: &str) -> Result<Self, LoadError> {
        let note = self.mapped.tables().note;
        let Some(number) = self.cpu_levels().position(|level| level == name) else {
            let levels = self.cpu_levels().map(Box::from).collect();
            return Err(self.at_origin(LoadError::Level { name: name.into(), levels }));
        };
        let levels = &note.levels()[..=number];
        let features = levels.iter().flat_map(|level| note.features_of(level));
        let features: Vec<Box<str>> = missing_features(features).map(Into::into).collect();
        if !features.is_empty() {
            return Err(self.at_origin(LoadError::Features { features }));
        }
        self.level = number as u32;
        Ok(self)
    }

    /// Returns the type of the exported function `name`, as `kiln_artifact::Signature` prints it.
    pub fn signature(&self, name: &str) -> Option<&str> {
        self.mapped.signature(self.mapped.lookup(name)?.index, name.as_bytes())
    }

    /// Compares everything that is loaded with the checksums that were taken when the image was
    /// written.
    ///
    /// # Errors
    ///
    /// [`LoadError::Altered`] names the part that was altered.
    #[cfg(feature = "verify")]
    pub fn verify(&self) -> Result<(), LoadError> {
        // SAFETY: only binding writes memory, and it takes the image.
        unsafe { self.mapped.verify() }
    }

    /// Sets whether the unwind rows are registered with the unwinder of the process when the first
    /// address of the bound image is given out, so that panics and exceptions unwind through its
    /// code and backtraces go through it. They are unless this is called with `false`; then
    /// [`Loaded::eh_frame`] has the rows, and [`Loaded::register_unwind_rows`] registers them.
    #[must_use]
    pub fn unwind(mut self, unwind: bool) -> Self {
        self.observers.unwind = if unwind { Unwind::Checked } else { Unwind::Not };
        self
    }

    /// Registers the unwind rows without checking them first, whatever the unwinder does with them.
    /// Then the first address is given out in a time that does not depend on the size of the code.
    /// Functions that are taken by their type are always, and other addresses with some unwinders,
    /// see [`Loaded::register_unwind_rows`].
    ///
    /// # Safety
    ///
    /// The rows must be what Kiln's linker wrote: nobody but the linker and tools that keep them
    /// may have written the file, and `Image::verify` would find them unaltered.
    #[must_use]
    pub unsafe fn trust_unwind_rows(mut self) -> Self {
        self.observers.unwind = Unwind::Trusted;
        self
    }

    /// Sets which debuggers are told about the code when the image is bound: functions by name,
    /// unwind rows, and lines and variables if the image has debug information, or gdb finds the
    /// file that has it by its build id. Default: one that is there; if none is, this costs one
    /// load. One that attaches later is told by [`Loaded::tell_debugger`].
    ///
    /// The debug information is copied, and kept with [`Debugger::Any`] even if no debugger comes.
    #[must_use]
    pub fn debugger(mut self, debugger: Debugger) -> Self {
        self.observers.debugger = debugger;
        self
    }

    /// Sets the file for perf into which functions are written when the image is bound. Default
    /// `None`: perf finds the names in the file of an image that was opened with [`Image::open`],
    /// unless it was stripped. While a [`Map`](Profiler::Map) is written, the code is a copy in
    /// memory, since perf reads no map for code of a file.
    #[must_use]
    pub fn profiler(mut self, profiler: Option<Profiler>) -> Self {
        self.observers.profiler = profiler;
        self
    }

    /// Does what [`bind`](Self::bind) does for an image that is a layer on `bases`. Each of its
    /// [bases](Self::bases) must be among them, or among their own bases. What it uses of them is
    /// found there, by name and type; so are globals that have a slot there, whose binding it
    /// shares. `resolver` is asked for the rest. Functions of bases that it replaces are replaced
    /// until the image is dropped, for everybody who calls them. Bases stay loaded as long as the
    /// image does.
    ///
    /// Of several layers that replace the same function, that which was bound last is in force.
    ///
    /// # Errors
    ///
    /// As for [`bind`](Self::bind); and [`LoadError::MissingBase`], [`LoadError::OtherBase`] and
    /// [`LoadError::BaseSymbols`], which names everything that a base does not have as it was.
    pub fn bind_on(self, bases: &[Arc<Loaded>], resolver: &dyn Resolve) -> Result<Loaded, LoadError> {
        let tables = self.mapped.tables();
        let layer = Layer::find(tables.note, bases, self.other_bases);
        let layer = layer.map_err(|error| self.at_origin(error))?;
        self.bind_layer(layer, resolver)
    }

    /// Fills the slots with the addresses that `resolver` gives, and makes the image callable. The
    /// resolver is told the type with which the image calls a function. It must also know the
    /// [routines](SlotKey::Routine) of the C library that the code generator calls, as
    /// [`libcalls::process`](crate::libcalls::process) does, which finds all symbols of this
    /// process: `image.bind(&bindings.or(&libcalls::process))`. A closure is a resolver, too.
    ///
    /// # Errors
    ///
    /// [`LoadError::At`], with the path of an image that was opened by its path, and the reason:
    /// [`LoadError::Unbound`] names every slot without an address and a function that uses it;
    /// [`LoadError::NotExecutable`] the mount that does not allow to execute code;
    /// [`LoadError::Malformed`] if a relocation would write outside writable data.
    ///
    /// An image that is a layer on others needs [`bind_on`](Self::bind_on).
    pub fn bind(self, resolver: &dyn Resolve) -> Result<Loaded, LoadError> {
        self.bind_on(&[], resolver)
    }

    /// Binds what is not of a base.
    fn bind_layer(self, layer: Layer, resolver: &dyn Resolve) -> Result<Loaded, LoadError> {
        let tables = self.mapped.tables();
        let note = tables.note;
        let malformed = |what| self.at_origin(LoadError::malformed(what, self.mapped.note_offset));
        // The keys are not collected: a list of them would take most of the time.
        let is_bad = Cell::new(false);
        let keys = tables.slot_key_refs().map_err(malformed)?.map(|key| {
            key.unwrap_or_else(|| {
                is_bad.set(true);
                KeyRef::Global("")
            })
        });
        // Slots may share a type of any length, so each is checked only once.
        let mut known: Vec<Option<Option<&str>>> = vec![None; note.signatures().len()];
        let types = note.slots().iter().map(|slot| {
            let index = slot.signature.get() as usize;
            *known.get_mut(index)?.get_or_insert_with(|| note.signature(index))
        });
        let with_thread_locals = WithThreadLocals(resolver);
        let resolver = if self.mapped.thread_local.is_some() { &with_thread_locals } else { resolver };
        let slots = keys.zip(types);
        let addresses = match layer.imports() {
            [] => kiln_globals::addresses_of_refs(slots, resolver),
            imports => addresses_on(slots, imports, resolver),
        };
        if is_bad.get() {
            return Err(malformed(BAD_SLOT));
        }
        match addresses {
            Ok(addresses) => self.bind_addresses(&addresses, layer),
            Err(error) => {
                let users = self.users(&error);
                Err(self.at_origin(LoadError::Unbound { error, users }))
            }
        }
    }

    /// Fills the slots with `addresses`, one for each slot in order, and makes the image callable.
    /// The address for the routine that finds thread-local data is not used: threads get theirs
    /// from this loader.
    ///
    /// # Errors
    ///
    /// [`LoadError::SlotCount`] if there are too many or too few; [`LoadError::Malformed`] as for
    /// [`Image::bind`]; [`LoadError::MissingBase`] if the image is a layer on others, which
    /// [`bind_on`](Self::bind_on) takes.
    pub fn bind_array(self, addresses: &[usize]) -> Result<Loaded, LoadError> {
        let expected = self.mapped.tables().note.slots().len();
        if addresses.len() != expected {
            return Err(self.at_origin(LoadError::SlotCount { found: addresses.len(), expected }));
        }
        let layer = Layer::find(self.mapped.tables().note, &[], false);
        let layer = layer.map_err(|error| self.at_origin(error))?;
        if self.mapped.thread_local.is_none() {
            return self.bind_addresses(addresses, layer);
        }
        let mut addresses = addresses.to_vec();
        for (key, address) in self.slots().iter().zip(&mut addresses) {
            if WithThreadLocals::is_routine(key.borrowed()) {
                *address = ThreadLocals::resolver();
            }
        }
        self.bind_addresses(&addresses, layer)
    }

    /// Makes the image callable, and tells its observers.
    fn bind_addresses(self, addresses: &[usize], layer: Layer) -> Result<Loaded, LoadError> {
        let Self { mapped, file, origin, observers, level, name, .. } = self;
        let mut loaded = match Loaded::bind(mapped, addresses, level, observers.unwind) {
            Ok(loaded) => loaded,
            Err(error) => return Err(at(origin.as_ref(), error)),
        };
        let told = loaded.tell(observers, &file);
        told.map_err(|error| at(origin.as_ref(), error))?;
        loaded.name = name;
        loaded.put_on(layer).map_err(|error| at(origin.as_ref(), error))?;
        loaded.origin = origin;
        Ok(loaded)
    }

    /// Adds the path of the image to an error, if it is known.
    fn at_origin(&self, error: LoadError) -> LoadError {
        at(self.origin.as_ref(), error)
    }

    /// Returns a function that uses each of the first slots without an address.
    fn users(&self, error: &UnboundError) -> Vec<Box<str>> {
        /// As many as messages show. Slots may have one user with a long name.
        const SHOWN: usize = 8;
        let tables = self.mapped.tables();
        // Both are in order of slots.
        let mut slots = self.slots().iter().zip(tables.note.slots());
        let mut user = |key: &SlotKey| {
            let (_, record) = slots.find(|(slot, _)| *slot == key)?;
            Some(tables.code_tables()?.find(record.user.get())?.name().into())
        };
        error.keys().take(SHOWN).map(|key| user(key).unwrap_or_default()).collect()
    }
}

impl Base for Image {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> ImageId {
        self.id()
    }

    fn triple(&self) -> &str {
        self.triple()
    }

    fn find(&self, name: &str) -> Option<BaseSymbol<'_>> {
        self.mapped.base_symbol(name)
    }

    fn slot_of_global(&self, key: &str) -> Option<u32> {
        self.mapped.slot_of_global(key)
    }
}

/// Returns the addresses of slots, of which `imports` are those that are known: the number of the
/// slot, in order, and the address.
fn addresses_on<'s>(
    slots: impl ExactSizeIterator<Item = (KeyRef<'s>, Option<&'s str>)>,
    imports: &[(u32, usize)],
    resolver: &dyn Resolve,
) -> Result<Vec<usize>, UnboundError> {
    let count = slots.len();
    let mut known = imports.iter().peekable();
    let others = (0..).zip(slots).filter(|(slot, _)| known.next_if(|import| import.0 == *slot).is_none());
    let others: Vec<_> = others.map(|(_, slot)| slot).collect();
    let mut others = kiln_globals::addresses_of_refs(others.into_iter(), resolver)?.into_iter();
    let mut known = imports.iter().peekable();
    let address = |slot| match known.next_if(|import| import.0 == slot) {
        Some((_, address)) => *address,
        None => others.next().unwrap_or_default(),
    };
    Ok((0..count as u32).map(address).collect())
}

/// Returns the name of a file without its folder.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Adds the path of an image to an error, if it is known.
fn at(origin: Option<&Origin>, error: LoadError) -> LoadError {
    match origin {
        Some(origin) => error.at(origin.path()),
        None => error,
    }
}

/// Copies the part that is used of the image at `path` into memory that nobody can change. Returns
/// the copy, its length and its headers.
pub(super) fn private_copy(path: &Path) -> Result<(File, u64, Headers), LoadError> {
    let Opened { file, metadata, headers } = open_image(path)?;
    let len = used_part(&file, metadata.len(), &headers)?;
    let copy = sealed_copy(&file, len)?;
    // Those of the copy, because the file may have changed since it was opened.
    let headers = read_headers(&copy)?;
    Ok((copy, len, headers))
}

/// Copies `len` bytes of `source` into a file in memory that nobody can change.
pub(super) fn sealed_copy(source: impl Read, len: u64) -> Result<File, LoadError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = memfd_create(c"kiln image", flags).map_err(|error| LoadError::io("copy")(error.into()))?;
    let copy = File::from(copy);
    let found = std::io::copy(&mut source.take(len), &mut &copy).map_err(LoadError::io("copy"))?;
    if found != len {
        return Err(LoadError::Length { found, expected: len });
    }
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&copy, seals).map_err(|error| LoadError::io("seal")(error.into()))?;
    Ok(copy)
}

/// Refuses an image that this machine cannot run.
pub(super) fn check_host(view: &View<'_>) -> Result<(), LoadError> {
    let note = view.note;
    let triple = note.text(note.head.triple).unwrap_or_default();
    if Arch::from_triple(triple) != Some(view.arch) || !Arch::is_host(triple) {
        return Err(LoadError::Target { triple: triple.into(), host: std::env::consts::ARCH });
    }
    let features = note.features().iter().map(|&feature| note.text(feature).unwrap_or("unknown"));
    let missing: Vec<Box<str>> = missing_features(features).map(Into::into).collect();
    if missing.is_empty() { Ok(()) } else { Err(LoadError::Features { features: missing }) }
}

//! Reads the blocks of a function, if they are written as printers of CLIF write them.
//!
//! Most of the time in which Cranelift's reader reads a function is spent on its blocks: characters
//! are decoded one by one, and a hash table has the line of every value and instruction. This
//! reader needs a fraction of that time. It knows one line per instruction and the usual formats of
//! instructions. It gives up at the first thing that it does not know, and at every error; then
//! Cranelift's reader reads the function and says what is wrong. So there is one source of errors.
//!
//! The head of a function and its declarations always come from Cranelift's reader.
//!
//! Invariant: a function that is read here is the one that Cranelift's reader makes of the same
//! text, down to the numbers of entities (`tests`).

mod operands;
#[cfg(test)]
mod tests;
mod words;

use cranelift_codegen::entity::EntityRef as _;
use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::ir::{
    self, Block, BlockArg, Inst, InstructionData, MemFlags, MemFlagsData, Opcode, SourceLoc, Type, Value,
    types,
};
use cranelift_reader::SourceMap;

use self::words::Words;
use super::shorten::{CommentNote, blanks};
use crate::limits::MAX_CHAIN;

/// The number from which Cranelift's reader refuses blocks.
const MAX_BLOCKS: usize = 100_000;

/// The blocks that are read so far.
struct Blocks<'t> {
    words: Words<'t>,
    function: ir::Function,
    /// The declarations of the function.
    map: &'t SourceMap,
    /// Whether each value is defined.
    defined: Vec<bool>,
    /// Values that were used before they were defined.
    early: Vec<Value>,
    aliases: Vec<Value>,
    /// The flags that the function's table has, or some of them.
    mem_flags: Vec<(MemFlagsData, MemFlags)>,
    /// Whether the last instruction had a list of values that was empty.
    last_is_empty: bool,
    comments: Vec<(CommentNote, AnyEntity)>,
    /// A position, and the number of line ends before it.
    counted: (usize, usize),
    // Memory that is reused.
    results: Vec<Value>,
    list: Vec<Value>,
    block_args: Vec<BlockArg>,
}

/// The text of a function's blocks.
#[derive(Clone, Copy)]
pub(super) struct BlocksText<'t> {
    /// From the first block to the closing brace.
    pub(super) text: &'t str,
    /// The line of its start in the function's text.
    pub(super) line: usize,
    /// The largest number that an entity of the function may have.
    pub(super) largest: usize,
}

/// Returns the position of the first block in a function's text, if it is first on its line.
pub(super) fn start(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr(b'\n', &text.as_bytes()[at..])? + 1;
        let line = blanks(&text[at..]);
        if line.starts_with("block") {
            return Some(at);
        }
    }
}

/// Reads the blocks of `function`, which has its declarations and no block. Returns it, and its
/// comments with the entities that they belong to.
pub(super) fn read(
    from: BlocksText<'_>,
    function: ir::Function,
    map: &SourceMap,
) -> Option<(ir::Function, Vec<(CommentNote, AnyEntity)>)> {
    let largest = u32::try_from(from.largest).unwrap_or(u32::MAX).min(u32::MAX / 2);
    let mut blocks = Blocks {
        words: Words::new(from.text, largest),
        function,
        map,
        defined: Vec::new(),
        early: Vec::new(),
        aliases: Vec::new(),
        mem_flags: Vec::new(),
        last_is_empty: false,
        comments: Vec::new(),
        counted: (0, from.line),
        results: Vec::new(),
        list: Vec::new(),
        block_args: Vec::new(),
    };
    blocks.all()?;
    Some((blocks.function, blocks.comments))
}

impl Blocks<'_> {
    fn all(&mut self) -> Option<()> {
        self.gap(None)?;
        let mut block = self.header()?;
        loop {
            match self.words.peek()? {
                b'}' => break,
                b'b' if self.is_header() => block = self.header()?,
                _ => self.statement(block)?,
            }
        }
        (self.words.rest().len() == 1).then_some(())?;
        let defined = |value: &Value| self.defined.get(value.index()) == Some(&true);
        self.early.iter().all(defined).then_some(())?;
        let dfg = &mut self.function.dfg;
        self.aliases.iter().all(|alias| dfg.set_alias_type_for_parser(*alias)).then_some(())
    }

    fn is_header(&self) -> bool {
        self.words
            .rest()
            .strip_prefix(b"block")
            .is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit))
    }

    /// Skips to the next block, instruction or closing brace. Comments on the way belong to
    /// `entity`; without one, there must be none.
    fn gap(&mut self, entity: Option<AnyEntity>) -> Option<()> {
        loop {
            match self.words.peek()? {
                b'\n' | b'\r' => self.words.go_to(self.words.at() + 1),
                b' ' | b'\t' => self.words.skip_blanks(),
                b';' => {
                    let at = self.words.at();
                    let note = self.note(at);
                    self.comments.push((note, entity?));
                    let end = memchr::memchr(b'\n', self.words.rest())?;
                    self.words.go_to(at + end);
                }
                _ => return Some(()),
            }
        }
    }

    /// Returns the note on the comment at `at`.
    fn note(&mut self, at: usize) -> CommentNote {
        let text = self.words.text().as_bytes();
        let (from, line) = self.counted;
        let line = line + memchr::memchr_iter(b'\n', &text[from..at]).count();
        self.counted = (at, line);
        let before = text[..at].iter().rev().find(|byte| !matches!(byte, b' ' | b'\t'));
        CommentNote { line, after_code: !matches!(before, None | Some(b'\n')) }
    }

    /// Reads the head of a block.
    fn header(&mut self) -> Option<Block> {
        let block = self.words.block()?;
        let Self { function, .. } = self;
        (block.index() < MAX_BLOCKS && !function.layout.is_block_inserted(block)).then_some(())?;
        while function.dfg.num_blocks() <= block.index() {
            function.dfg.make_block();
        }
        function.layout.append_block(block);
        if self.words.eat(b'(') && !self.words.eat(b')') {
            let mut params = 0;
            loop {
                let value = self.words.value()?;
                self.words.expect(b':')?;
                self.make(value);
                let ty = self.words.ty()?;
                params += 1;
                (params < usize::from(u16::MAX)).then_some(())?;
                self.function.dfg.append_block_param_for_parser(block, ty, value);
                self.define(value)?;
                if !self.words.eat(b',') {
                    break;
                }
            }
            self.words.expect(b')')?;
        }
        if self.words.next() == Some(b'c') {
            (self.words.word() == "cold").then_some(())?;
            self.function.layout.set_cold(block);
        }
        self.words.expect(b':')?;
        self.gap(Some(block.into()))?;
        Some(block)
    }

    /// Reads an instruction or an alias.
    fn statement(&mut self, block: Block) -> Option<()> {
        let location = self.location()?;
        self.results.clear();
        let rest = self.words.rest();
        if rest.first() == Some(&b'v') && rest.get(1).is_some_and(u8::is_ascii_digit) {
            // A list of values may continue here.
            (!self.last_is_empty).then_some(())?;
            loop {
                let value = self.words.value()?;
                self.results.push(value);
                if !self.words.eat(b',') {
                    break;
                }
            }
            for number in 0..self.results.len() {
                self.make(self.results[number]);
            }
            if self.words.eat(b'-') {
                // Nothing is between the two.
                (self.words.peek() == Some(b'>')).then_some(())?;
                self.words.expect(b'>')?;
                return self.alias(location);
            }
            self.words.expect(b'=')?;
        }
        self.last_is_empty = false;
        for number in 0..self.results.len() {
            self.define(self.results[number])?;
        }
        let inst = self.instruction(block)?;
        if !location.is_default() {
            self.function.set_srcloc(inst, location);
        }
        self.gap(Some(inst.into()))
    }

    /// Reads the source location of an instruction, if it has one.
    fn location(&mut self) -> Option<SourceLoc> {
        if self.words.peek() != Some(b'@') {
            return Some(SourceLoc::default());
        }
        let digits = &self.words.rest()[1..];
        let length = digits.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        (1..=8).contains(&length).then_some(())?;
        let hex = |number: u32, byte: &u8| number << 4 | char::from(*byte).to_digit(16).unwrap_or(0);
        let number = digits[..length].iter().fold(0, hex);
        self.words.go_to(self.words.at() + 1 + length);
        self.words.skip_blanks();
        Some(SourceLoc::new(number))
    }

    /// Reads what an alias is another name of.
    fn alias(&mut self, location: SourceLoc) -> Option<()> {
        let [alias] = self.results[..] else { return None };
        let original = self.words.value()?;
        // The limit on chains of aliases is checked elsewhere.
        (location.is_default() && self.aliases.len() < MAX_CHAIN).then_some(())?;
        (self.defined.get(original.index()) == Some(&true)).then_some(())?;
        self.define(alias)?;
        self.function.dfg.make_value_alias_for_serialization(original, alias);
        self.aliases.push(alias);
        self.gap(None)
    }

    fn instruction(&mut self, block: Block) -> Option<Inst> {
        let opcode: Opcode = self.words.word().parse().ok()?;
        let ty = match self.words.peek() {
            Some(b'.') => {
                self.words.go_to(self.words.at() + 1);
                Some(self.words.ty()?)
            }
            _ => None,
        };
        let data = self.operands(opcode, ty)?;
        let controlling = self.controlling(opcode, ty, &data)?;
        let Self { function, results, .. } = self;
        let inst = function.dfg.make_inst(data);
        let count = function.dfg.make_inst_results_for_parser(inst, controlling, results);
        function.layout.append_inst(inst, block);
        (count == results.len()).then_some(inst)
    }

    /// Returns the controlling type of an instruction, as Cranelift's reader infers it.
    fn controlling(&self, opcode: Opcode, ty: Option<Type>, data: &InstructionData) -> Option<Type> {
        let constraints = opcode.constraints();
        let dfg = &self.function.dfg;
        let ty = match ty {
            Some(ty) => ty,
            None if constraints.use_typevar_operand() => {
                let value = data.typevar_operand(&dfg.value_lists)?;
                let known = self.defined.get(value.index()) == Some(&true);
                (known && dfg.value_is_valid_for_parser(value)).then(|| dfg.value_type(value))?
            }
            None if constraints.is_polymorphic() => return None,
            None => types::INVALID,
        };
        match constraints.ctrl_typeset() {
            Some(set) => set.contains(ty),
            None => ty == types::INVALID,
        }
        .then_some(ty)
    }

    /// Reads a value that is used.
    #[inline]
    fn used(&mut self) -> Option<Value> {
        let value = self.words.value()?;
        if self.defined.get(value.index()) != Some(&true) {
            self.early.push(value);
        }
        Some(value)
    }

    /// Makes the function's table long enough for a value.
    fn make(&mut self, value: Value) {
        while self.function.dfg.num_values() <= value.index() {
            self.function.dfg.make_invalid_value_for_parser();
        }
    }

    /// Notes that a value is defined. There must be no other definition.
    fn define(&mut self, value: Value) -> Option<()> {
        if self.defined.len() <= value.index() {
            self.defined.resize(value.index() + 1, false);
        }
        (!std::mem::replace(&mut self.defined[value.index()], true)).then_some(())
    }
}

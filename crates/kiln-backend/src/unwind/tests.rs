//! Tests of entries that running code does not show: those written by hand, of traps, of islands.
//!
//! `tests/unwind` of the workspace compares rows with the truth at every instruction that runs.

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::Endianness;
use gimli::write::{EhFrame as EhFrameWriter, EndianVec, FrameTable};
use gimli::{
    BaseAddresses, CfaRule, EhFrame, Register, RegisterRule, RunTimeEndian, UnwindContext, UnwindSection as _,
};
use kiln_ir::{Code, ModuleSettings, Source, Target, parse};

use super::epilogue::{self, Body};
use super::writer::Writer;
use super::{aarch64, cie, mark, rows};

const TARGETS: [&str; 4] = ["x86_64", "aarch64", "riscv64", "s390x"];

/// The rules at one offset: register and offset of the CFA, and the registers with a rule.
type Rules = ((u16, i64), Vec<(u16, i64)>);

/// Evaluates `rows` at each of `offsets`.
fn evaluate(cie: &[u8], rows: &[u8], len: u32, offsets: &[u32]) -> Vec<Rules> {
    // The entry of a function at address 0, in a section at address 0.
    let mut section = cie.to_vec();
    let size = (17 + rows.len()).next_multiple_of(8) as u32;
    let place = section.len() as u32;
    section.extend((size - 4).to_le_bytes());
    section.extend((place + 4).to_le_bytes());
    section.extend((place + 8).wrapping_neg().to_le_bytes());
    section.extend(len.to_le_bytes());
    section.push(0);
    section.extend(rows);
    section.resize((place + size) as usize, 0);
    section.extend([0; 4]);
    let mut frame = EhFrame::new(&section, RunTimeEndian::Little);
    frame.set_address_size(8);
    let bases = BaseAddresses::default().set_eh_frame(0);
    let rules = |&offset: &u32| {
        let mut context = UnwindContext::new();
        let row = frame
            .unwind_info_for_address(&bases, &mut context, offset.into(), EhFrame::cie_from_offset)
            .expect("a row");
        let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else { panic!("an expression") };
        let mut registers: Vec<(u16, i64)> = row
            .registers()
            .map(|(Register(register), rule)| match rule {
                RegisterRule::Offset(offset) => (*register, *offset),
                other => panic!("{other:?}"),
            })
            .collect();
        registers.sort_unstable();
        ((register.0, offset), registers)
    };
    offsets.iter().map(rules).collect()
}

/// The code of a function, its rows, the offsets of its traps, and the initial rows of its CIE.
type Compiled = (Vec<u8>, Vec<u8>, Vec<u32>, &'static [u8]);

/// Compiles the only function of `text`. Returns code, rows, and the offsets of traps.
fn compile(target: &str, text: &str) -> Option<Compiled> {
    let target = Target::parse(target).expect("a known architecture");
    let Ok(isa) = target.isa(&ModuleSettings::default()) else {
        println!("{text}: skipped, needs the feature `all-arch`");
        return None;
    };
    let module = parse(Source::new("test.clif", text).into(), &target).expect("a valid module");
    let Code::Ir(body) = &module.functions[0].code else { panic!("machine code") };
    let mut context = cranelift_codegen::Context::new();
    body.decode_into(module.functions[0].symbol, &mut context.func);
    mark(&mut context.func, &*isa);
    context.compile(&*isa, &mut ControlPlane::default()).expect("it compiles");
    let code = context.compiled_code().expect("it was compiled");
    let rows = rows(code, &context.func, &*isa).expect("rows");
    let traps = code.buffer.traps().iter().map(|trap| trap.offset).collect();
    Some((code.buffer.data().to_vec(), rows, traps, cie(&*isa)))
}

#[test]
fn common_entries_are_those_of_cranelift() {
    for name in TARGETS {
        let target = Target::parse(name).expect("a known architecture");
        let Ok(isa) = target.isa(&ModuleSettings::default()) else { continue };
        let big = isa.endianness() == Endianness::Big;
        let mut theirs = isa.create_systemv_cie().expect("an entry");
        theirs.fde_address_encoding = gimli::constants::DwEhPe(0x1b);
        if name == "s390x" {
            // The rule that Cranelift leaves to each function.
            theirs.add_instruction(gimli::write::CallFrameInstruction::ValOffset(Register(15), -160));
        }
        let mut table = FrameTable::default();
        let id = table.add_cie(theirs);
        table.add_fde(id, gimli::write::FrameDescriptionEntry::new(gimli::write::Address::Constant(0), 4));
        let endian = if big { RunTimeEndian::Big } else { RunTimeEndian::Little };
        let mut section = EhFrameWriter(EndianVec::new(endian));
        table.write_eh_frame(&mut section).expect("it can be written");
        let ours = cie(&*isa);
        assert_eq!(section.0.slice()[..ours.len()], *ours, "{name}");
    }
}

/// The prologue jumps to the trap before it saves registers.
#[test]
fn the_trap_of_a_stack_limit_has_the_rows_of_its_prologue() {
    let live = (1..13).map(|value| format!(" v{value} = load.i64 v0+{}\n", 8 * value)).collect::<String>();
    let stores = (1..13).map(|value| format!(" store v{value}, v0+{}\n", 8 * value)).collect::<String>();
    let text = format!(
        "function %limited(i64 vmctx, i64) system_v {{\n gv0 = vmctx\n gv1 = load.i64 notrap aligned gv0\n stack_limit = gv1\n fn0 = %other() system_v\nblock0(v0: i64, v20: i64):\n{live} call fn0()\n{stores} brif v20, block1, block2\nblock1:\n store v20, v0\n trap stk_ovf\nblock2:\n return\n}}\n"
    );
    for (target, frame, link) in [("x86_64", 6, 16), ("aarch64", 29, 30)] {
        let Some((code, rows, traps, cie)) = compile(target, &text) else { continue };
        // The trap of the IR comes first: it is in its place.
        let [.., in_place, last] = traps[..] else { panic!("{traps:?}") };
        let rules = evaluate(cie, &rows, code.len() as u32, &[in_place, last]);
        let linkage = vec![(frame, -16), (link, -8)];
        assert_eq!(rules[1], ((frame, 16), linkage), "{target}");
        assert_eq!(rules[0].0, (frame, 16), "{target}");
        assert!(rules[0].1.len() > 4, "{target}: {:?}", rules[0]);
    }
}

/// An island is reached from the function's body only, also if it lies in an epilogue.
#[test]
fn an_island_in_an_epilogue_has_the_rows_of_the_body() {
    let words: [u32; 8] = [
        0xf840_07f3 | 16 << 12, // ldr x19, [sp], #16
        0x1400_0003,            // b .+12
        0x1400_1000,            // the island: a veneer
        0xd503_201f,            // nop
        0xa8c1_7bfd,            // ldp x29, x30, [sp], #16
        0x9100_83ff,            // add sp, sp, #32
        0xd65f_03c0,            // ret
        0xd503_201f,            // nop
    ];
    let code = words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut writer = Writer::new(4, Endianness::Little);
    writer.cfa(29, 16);
    for (register, offset) in [(29, -16), (30, -8), (19, -32)] {
        writer.offset(register, offset);
    }
    let body = Body {
        stack: 31,
        frame: 29,
        cfa: Some(16),
        size: 16,
        saved: 1 << 19,
        linkage: 1 << 29 | 1 << 30,
        return_address: None,
    };
    epilogue::write::<aarch64::Instructions>(&mut writer, &body, &code, 0);
    let offsets = [0, 4, 8, 12, 16, 20, 24, 28];
    let rules = evaluate(&aarch64::CIE, &writer.bytes, code.len() as u32, &offsets);
    let all: Rules = ((29, 16), vec![(19, -32), (29, -16), (30, -8)]);
    let restored: Rules = ((29, 16), vec![(29, -16), (30, -8)]);
    let (freed, popped): (Rules, Rules) = (((31, 0), vec![]), ((31, -32), vec![]));
    assert_eq!(
        rules,
        [all.clone(), restored.clone(), all.clone(), all.clone(), restored, freed, popped, all]
    );
}

/// Large distances of aarch64 are made in a register.
#[test]
fn an_epilogue_follows_constants() {
    // movz x16, #0x1230; movk x16, #1, lsl #16; add sp, sp, x16; ret
    let words: [u32; 4] = [0xd282_4610, 0xf2a0_0030, 0x8b30_63ff, 0xd65f_03c0];
    // orr x16, xzr, #0xff0; add sp, sp, x16; ret
    let logical: [u32; 3] = [0xb27c_1ff0, 0x8b30_63ff, 0xd65f_03c0];
    let body = Body { stack: 31, frame: 29, cfa: None, size: 0, saved: 0, linkage: 0, return_address: None };
    for (words, distance) in [(&words[..], 0x11230), (&logical, 0xff0)] {
        let code = words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let mut writer = Writer::new(4, Endianness::Little);
        epilogue::write::<aarch64::Instructions>(&mut writer, &body, &code, 0);
        let last = code.len() as u32 - 4;
        let rules = evaluate(&aarch64::CIE, &writer.bytes, code.len() as u32, &[last - 4, last]);
        assert_eq!(rules, [((31, 0), vec![]), ((31, -distance), vec![])]);
    }
}

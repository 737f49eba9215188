//! UCUM: is a text a unit of the Unified Code for Units of Measure, in its case sensitive form, and which one was probably meant?
//!
//! The grammar is that of the specification (ucum.org, §§5-12), the symbols are those of its essence, version 2.2.

use rustc_hash::FxHashSet;
use std::sync::LazyLock;

/// Prefixes of metric units; binary ones too.
const PREFIXES: &[&str] = &["da", "Ki", "Mi", "Gi", "Ti", "Y", "Z", "E", "P", "T", "G", "M", "k", "h", "d", "c", "m", "u", "n", "p", "f", "a", "z", "y"];

/// Symbols that take a prefix.
const METRIC: &str = "m s g rad K C cd mol sr Hz N Pa J W A V F Ohm S Wb Cel T H lm lx Bq Gy Sv l L ar t bar u eV pc [c] [h] [k] [eps_0] [mu_0] [e] [m_e] \
    [m_p] [G] [g] [ly] gf Ky Gal dyn erg P Bi St Mx G Oe Gb sb Lmb ph Ci R RAD REM cal_[15] cal_[20] cal_m cal_IT cal_th cal tex m[H2O] m[Hg] eq osm g% kat U \
    [iU] [IU] Np B B[SPL] B[V] B[mV] B[uV] B[10.nV] B[W] B[kW] st mho bit By Bd";

/// Symbols that take none.
const PLAIN: &str = "10* 10^ [pi] % [ppth] [ppm] [ppb] [pptr] gon deg ' '' min h d a_t a_j a_g a wk mo_s mo_j mo_g mo AU atm [lbf_av] [in_i] [ft_i] [yd_i] [mi_i] \
    [fth_i] [nmi_i] [kn_i] [sin_i] [sft_i] [syd_i] [cin_i] [cft_i] [cyd_i] [bf_i] [cr_i] [mil_i] [cml_i] [hd_i] [ft_us] [yd_us] [in_us] [rd_us] [ch_us] [lk_us] \
    [rch_us] [rlk_us] [fth_us] [fur_us] [mi_us] [acr_us] [srd_us] [smi_us] [sct] [twp] [mil_us] [in_br] [ft_br] [rd_br] [ch_br] [lk_br] [fth_br] [pc_br] [yd_br] \
    [mi_br] [nmi_br] [kn_br] [acr_br] [gal_us] [bbl_us] [qt_us] [pt_us] [gil_us] [foz_us] [fdr_us] [min_us] [crd_us] [bu_us] [gal_wi] [pk_us] [dqt_us] [dpt_us] \
    [tbs_us] [tsp_us] [cup_us] [foz_m] [cup_m] [tsp_m] [tbs_m] [gal_br] [pk_br] [bu_br] [qt_br] [pt_br] [gil_br] [foz_br] [fdr_br] [min_br] [gr] [lb_av] [oz_av] \
    [dr_av] [scwt_av] [lcwt_av] [ston_av] [lton_av] [stone_av] [pwt_tr] [oz_tr] [lb_tr] [sc_ap] [dr_ap] [oz_ap] [lb_ap] [oz_m] [lne] [pnt] [pca] [pnt_pr] [pca_pr] \
    [pied] [pouce] [ligne] [didot] [cicero] [degF] [degR] [degRe] [Cal] [Btu_39] [Btu_59] [Btu_60] [Btu_m] [Btu_IT] [Btu_th] [Btu] [HP] [den] [in_i'H2O] [in_i'Hg] \
    [PRU] [wood'U] [diop] [p'diop] %[slope] [mesh_i] [Ch] [drp] [hnsf'U] [MET] [hp'_X] [hp'_C] [hp'_M] [hp'_Q] [hp_X] [hp_C] [hp_M] [hp_Q] [kp_X] [kp_C] [kp_M] \
    [kp_Q] [pH] [S] [HPF] [LPF] [arb'U] [USP'U] [GPL'U] [MPL'U] [APL'U] [beth'U] [anti'Xa'U] [todd'U] [dye'U] [smgy'U] [bdsk'U] [ka'U] [knk'U] [mclg'U] [tb'U] \
    [CCID_50] [TCID_50] [EID_50] [PFU] [FFU] [CFU] [IR] [BAU] [AU] [Amb'a'1'U] [PNU] [Lf] [D'ag'U] [FEU] [ELU] [EU] Ao b att [psi] circ sph [car_m] [car_Au] \
    [smoot] [m/s2/Hz^(1/2)] [NTU] [FNU] bit_s";

static METRIC_SET: LazyLock<FxHashSet<&str>> = LazyLock::new(|| METRIC.split_ascii_whitespace().collect());
static PLAIN_SET: LazyLock<FxHashSet<&str>> = LazyLock::new(|| PLAIN.split_ascii_whitespace().collect());

/// The code system of UCUM.
pub const UCUM: &str = "http://unitsofmeasure.org";

/// Parentheses may nest this deep.
const DEPTH_MAX: usize = 20;

/// Longer texts are no units.
const LENGTH_MAX: usize = 200;

/// Is this a unit of UCUM, written as UCUM writes it (case matters)?
pub fn is_ucum(code: &str) -> bool {
    ucum_fault(code).is_none()
}

/// The part of the text that makes it no unit of UCUM, as bytes; `None` if it is one.
pub fn ucum_fault(code: &str) -> Option<(usize, usize)> {
    if code.is_empty() || code.len() > LENGTH_MAX {
        return Some((0, code.len()));
    }
    let mut reader = Reader { text: code, at: 0 };
    if reader.byte() == Some(b'/') {
        reader.at += 1;
    }
    match reader.term(0) {
        Err(fault) => Some(fault),
        Ok(()) if reader.at < code.len() => Some((reader.at, code.len())),
        Ok(()) => None,
    }
}

/// The unit that a text was probably meant to be: its symbols in the right case and with their brackets. `None` if there is none, or more than one.
pub fn suggest_ucum(code: &str) -> Option<String> {
    let mut meant = code.to_owned();
    // Each round mends one symbol.
    for _ in 0..8 {
        let Some((from, to)) = ucum_fault(&meant) else { return (meant != code).then_some(meant) };
        let symbol = only(candidates(meant.get(from..to)?))?;
        meant.replace_range(from..to, &symbol);
    }
    None
}

fn only(mut candidates: Vec<String>) -> Option<String> {
    candidates.sort();
    candidates.dedup();
    if candidates.len() == 1 { candidates.pop() } else { None }
}

/// Units that read the same but for brackets; if there are none, but for brackets and case.
fn candidates(text: &str) -> Vec<String> {
    let bare = |s: &str| s.chars().filter(|c| !matches!(c, '[' | ']')).collect::<String>();
    let lower = |s: &str| bare(s).to_lowercase();
    let exact = units().filter(|unit| bare(unit) == bare(text)).collect::<Vec<_>>();
    if exact.is_empty() { units().filter(|unit| lower(unit) == lower(text)).collect() } else { exact }
}

/// All symbols, with each prefix that they take.
fn units() -> impl Iterator<Item = String> {
    let metric = METRIC.split_ascii_whitespace().flat_map(|unit| {
        let prefixed = PREFIXES.iter().map(move |p| format!("{p}{unit}"));
        prefixed.chain(std::iter::once(unit.to_owned()))
    });
    metric.chain(PLAIN.split_ascii_whitespace().map(str::to_owned))
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

type Fault = (usize, usize);

impl Reader<'_> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// `component ((. | /) component)*`
    fn term(&mut self, depth: usize) -> Result<(), Fault> {
        loop {
            self.component(depth)?;
            match self.byte() {
                Some(b'.' | b'/') => self.at += 1,
                _ => return Ok(()),
            }
        }
    }

    fn component(&mut self, depth: usize) -> Result<(), Fault> {
        let start = self.at;
        match self.byte() {
            Some(b'(') if depth < DEPTH_MAX => {
                self.at += 1;
                self.term(depth + 1)?;
                if self.byte() != Some(b')') {
                    return Err((start, self.at));
                }
                self.at += 1;
                Ok(())
            }
            Some(b'{') => self.annotation(),
            Some(b'0'..=b'9') if !matches!(self.text.get(self.at..), Some(rest) if rest.starts_with("10*") || rest.starts_with("10^")) => {
                self.digits();
                Ok(())
            }
            Some(_) => {
                self.unit()?;
                if matches!(self.byte(), Some(b'+' | b'-')) {
                    self.at += 1;
                    if !self.byte().is_some_and(|b| b.is_ascii_digit()) {
                        return Err((start, self.at));
                    }
                }
                self.digits();
                if self.byte() == Some(b'{') { self.annotation() } else { Ok(()) }
            }
            None => Err((start.saturating_sub(1), start)),
        }
    }

    fn digits(&mut self) {
        while self.byte().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// `{...}`: any visible ASCII but braces.
    fn annotation(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.at += 1;
        while self.byte().is_some_and(|b| b.is_ascii_graphic() && !matches!(b, b'{' | b'}')) {
            self.at += 1;
        }
        if self.byte() != Some(b'}') {
            return Err((start, (self.at + 1).min(self.text.len())));
        }
        self.at += 1;
        Ok(())
    }

    /// A symbol, with a prefix where it takes one.
    fn unit(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let rest = self.text.get(start..).unwrap_or("");
        if rest.starts_with("10*") || rest.starts_with("10^") {
            self.at += 3;
            return Ok(());
        }
        while let Some(b) = self.byte() {
            match b {
                b'[' => match self.text.get(self.at..).and_then(|r| r.find(']')) {
                    Some(n) => self.at += n + 1,
                    None => return Err((start, self.text.len())),
                },
                b'.' | b'/' | b'(' | b')' | b'{' | b'}' | b'+' | b'-' | b'0'..=b'9' => break,
                _ => self.at += 1,
            }
        }
        let symbol = self.text.get(start..self.at).unwrap_or("");
        let metric = |unit: &str| METRIC_SET.contains(unit);
        let known = metric(symbol) || PLAIN_SET.contains(symbol) || PREFIXES.iter().any(|p| symbol.strip_prefix(p).is_some_and(metric));
        if known { Ok(()) } else { Err((start, self.at.max(start + 1).min(self.text.len()))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_known_as_ucum_writes_them() {
        for good in [
            "mg/dL",
            "mmol/L",
            "10*3/uL",
            "10*9/L",
            "10^12/L",
            "%",
            "mm[Hg]",
            "[IU]/L",
            "m[IU]/L",
            "kg/m2",
            "mL/min/{1.73_m2}",
            "/min",
            "{beats}/min",
            "Cel",
            "[degF]",
            "g/(24.h)",
            "meq/L",
            "ug/mL{FEU}",
            "1",
            "[pH]",
            "fL",
            "pg",
            "s-1",
            "m.s-2",
            "mosm/kg",
            "U/L",
            "[in_i]",
            "[lb_av]",
            "(8.h)",
            "a",
            "mo",
            "cm[H2O]",
            "[arb'U]/mL",
            "ng/mL",
            "{score}",
            "daL",
        ] {
            assert_eq!(ucum_fault(good), None, "{good}");
        }
        for bad in [
            "", "mg/", "mgdL", "MG/DL", "IU/L", "mmHg", "lbs", "mg//dL", "x10^3/uL", "K/µL", "mg dL", "{open", "(g", "g)", "g+", "kmin", "%%", "{a b}",
            "[bogus]",
        ] {
            assert!(!is_ucum(bad), "{bad}");
        }
    }

    #[test]
    fn what_was_meant_is_told_where_there_is_one() {
        assert_eq!(suggest_ucum("mmHg").as_deref(), Some("mm[Hg]"));
        assert_eq!(suggest_ucum("IU/L").as_deref(), Some("[IU]/L"));
        assert_eq!(suggest_ucum("cel").as_deref(), Some("Cel"));
        assert_eq!(suggest_ucum("degF").as_deref(), Some("[degF]"));
        assert_eq!(suggest_ucum("MG/DL"), None, "a milligram or a megagram");
        assert_eq!(suggest_ucum("lbs"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(text in "[0-9a-zA-Z\\[\\]{}()./*^+%' µ-]{0,30}") {
            if let Some((from, to)) = ucum_fault(&text) {
                prop_assert!(from <= to && to <= text.len());
            }
            if let Some(meant) = suggest_ucum(&text) {
                prop_assert!(is_ucum(&meant));
            }
        }
    }
}

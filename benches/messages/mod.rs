//! The messages that benchmarks read; invented, in the sizes of the issue's anchors.

/// The messages of the issue's anchors: an admission of about 1.2 KB and a laboratory report of about 6 KB.
pub(crate) fn messages() -> [(&'static str, String); 2] {
    let adt = "MSH|^~\\&|ADTAPP|GENERAL HOSPITAL|KILN|FHIR|20260309142501.123+0100||ADT^A01^ADT_A01|MSG0000000001|P|2.5.1|||AL|NE||UNICODE UTF-8\r\
        EVN|A01|20260309142501+0100|||OPERATOR1^Nurse^Nora^^^^^^HOSP\r\
        PID|1||4711000001^^^HOSP&1.2.276.0.76.4.17&ISO^MR~A123456789^^^KVNR^NI~99887766^^^OLDHOSP^PI||Mustermann^Erika^Maria^^Dr.^^L~Gabler^Erika^^^^^M||19640812|F|||Heidestra\u{df}e 17^^K\u{f6}ln^^51147^DEU^H~Postfach 1234^^K\u{f6}ln^^51149^DEU^M||^PRN^PH^^49^2203^1234567~^NET^Internet^erika@example.org|^WPN^PH^^49^221^7654321|deu^German^ISO639|M|CAT|ACC556677^^^HOSP^AN|||||Berlin|N|1|DEU||||N\r\
        PD1||||1234^Hausarzt^Heinz^^^Dr.\r\
        NK1|1|Mustermann^Max|SPO^Spouse^HL70063|Heidestra\u{df}e 17^^K\u{f6}ln^^51147^DEU|^PRN^PH^^49^2203^1234567||N\r\
        PV1|1|I|INT^101^A^HOSP^^^^3|E|||1001^Arzt^Anna^^^Dr.|2002^Konsil^Kurt||MED||||1|||1001^Arzt^Anna^^^Dr.|IN|V2026000123^^^HOSP^VN|||||||||||||||||||||||||20260309142000\r\
        AL1|1|DA|70618^Penicillin^RXNORM|SV|Hives~Shortness of breath|20100501\r\
        ROL|1|AD|AT|1001^Arzt\r\
        DG1|1||I21.9^Acute myocardial infarction^I10||20260309|A\r\
        DG1|2||E11.9^Type 2 diabetes mellitus^I10||20260309|W\r\
        PR1|1||5-361^Coronary bypass^OPS||202603091700|P\r\
        IN1|1|GKV001^Statutory|AOK01|AOK Rheinland||||||||||||Mustermann^Erika|SEL|19640812\r";
    let mut oru = "MSH|^~\\&|LAB|GENERAL HOSPITAL|KILN|FHIR|20260309160001||ORU^R01^ORU_R01|LAB0000000001|P|2.5.1|||AL|NE||UNICODE UTF-8\r\
        PID|1||4711000001^^^HOSP^MR||Mustermann^Erika||19640812|F\rPV1|1|I|INT^101^A\rORC|RE|ORD4488^KIS|FIL9921^LAB||CM\r\
        OBR|1|ORD4488^KIS|FIL9921^LAB|58410-2^CBC panel^LN|||20260309143000|||||||20260309144500||1001^Arzt^Anna||||||20260309155900||HM|F\r"
        .to_owned();
    let mut n = 0;
    while oru.len() < 6_100 {
        n += 1;
        oru.push_str(&format!(
            "OBX|{n}|NM|{}-{}^Analyte number {n} in blood^LN^L{n}^local^LAB||{}.{}|10*3/uL^thousand per microlitre^UCUM|3.5-10.5|N|||F|||20260309155900||LAB^Technician||ANALYZER7\rNTE|1||Checked by hand, see method 12\\T\\13\r",
            6690 + n,
            n % 10,
            n * 3,
            n % 7
        ));
    }
    [("ADT", adt.to_owned()), ("ORU", oru)]
}

//! The little of ASN.1's DER (ITU-T X.690) that private keys need: taking PKCS#8 apart, and putting JWKs into it.

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// 1.2.840.113549.1.1.1, rsaEncryption.
pub(crate) const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1, id-ecPublicKey.
pub(crate) const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.3.132.0.34, secp384r1.
pub(crate) const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// The algorithm's identifier and the key inside of a PKCS#8 key (RFC 5208, section 5): `SEQUENCE { version, algorithm, OCTET STRING }`.
pub(crate) fn pkcs8(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (inside, _) = value(der, SEQUENCE)?;
    let (_version, rest) = value(inside, INTEGER)?;
    let (algorithm, rest) = value(rest, SEQUENCE)?;
    let (key, _) = value(rest, OCTET_STRING)?;
    Some((algorithm, key))
}

/// The value of the element that `bytes` begin with, and what follows it.
fn value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [found, first, rest @ ..] = bytes else { return None };
    if *found != tag {
        return None;
    }
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(*first & 0x7f);
        let (digits, rest) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
        (digits.iter().fold(0, |n, d| n << 8 | usize::from(*d)), rest)
    };
    rest.split_at_checked(length)
}

/// A PKCS#1 key (RFC 8017, appendix A.1.2) of n, e, d, p, q, dp, dq, qi: unsigned, most significant byte first.
pub(crate) fn rsa_key(numbers: &[Vec<u8>; 8]) -> Vec<u8> {
    let mut inside = element(INTEGER, &[0]);
    for number in numbers {
        let digits = number.iter().position(|b| *b != 0).map_or(&[0][..], |start| number.get(start..).unwrap_or_default());
        // A leading bit that is set would make it negative.
        let sign: &[u8] = if digits.first().is_some_and(|b| *b >= 0x80) { &[0] } else { &[] };
        inside.extend(element(INTEGER, &[sign, digits].concat()));
    }
    element(SEQUENCE, &inside)
}

/// An EC key of P-384 (RFC 5915) of its private number and the point, without anything around it.
pub(crate) fn ec_key(d: &[u8], x: &[u8], y: &[u8]) -> Vec<u8> {
    let public = element(BIT_STRING, &[&[0, 4], x, y].concat());
    element(SEQUENCE, &[element(INTEGER, &[1]), element(OCTET_STRING, d), element(0xa1, &public)].concat())
}

/// PKCS#8 around an EC key of P-384.
pub(crate) fn around_ec_key(key: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[element(INTEGER, &[0]), element(SEQUENCE, &[EC, P384].concat()), element(OCTET_STRING, key)].concat())
}

fn element(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len();
    let mut bytes = vec![tag];
    if length < 0x80 {
        bytes.push(length as u8);
    } else {
        let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
        bytes.push(0x80 | digits.len() as u8);
        bytes.extend(digits);
    }
    bytes.extend_from_slice(value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_can_be_taken_apart() {
        let key = ec_key(&[7; 48], &[8; 48], &[9; 48]);
        let whole = around_ec_key(&key);
        assert_eq!(pkcs8(&whole), Some((&[EC, P384].concat()[..], &key[..])));
        assert!(pkcs8(&element(SEQUENCE, &[1; 300])).is_none());
        assert_eq!(value(&element(OCTET_STRING, &[5; 300]), OCTET_STRING), Some((&[5; 300][..], &[][..])));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            pkcs8(&bytes);
        }
    }
}

// One transformer step. `msg` is the message as E4X, `channelMap` takes the result.
var systems = { HOSP: 'https://hosp.example/mrn', REG: 'https://region.example/person' };
var genders = { F: 'female', M: 'male', O: 'other', A: 'other' };
var maritalStates = { M: 'M', S: 'S', D: 'D', W: 'W' };
var phoneSystems = { PH: 'phone', CP: 'phone', FX: 'fax', Internet: 'email' };
var phoneUses = { PRN: 'home', WPN: 'work' };
var pid = msg['PID'];

function date(ts) {
    return ts.length < 8 ? null : ts.substring(0, 4) + '-' + ts.substring(4, 6) + '-' + ts.substring(6, 8);
}

function name(family, first, second) {
    return { family: family, given: [first, second].filter(function (g) { return g; }) };
}

var patient = { resourceType: 'Patient', identifier: [], name: [], telecom: [] };
for each (var id in pid['PID.3']) {
    var authority = id['PID.3.4'].toString();
    patient.identifier.push({
        system: systems[authority] || 'https://hosp.example/authority/' + msg['MSH']['MSH.4']['MSH.4.1'].toString() + '/' + authority,
        value: id['PID.3.1'].toString()
    });
}
for each (var n in pid['PID.5']) {
    patient.name.push(name(n['PID.5.1'].toString(), n['PID.5.2'].toString(), n['PID.5.3'].toString()));
}
for each (var n in pid['PID.9']) {
    patient.name.push(name(n['PID.9.1'].toString(), n['PID.9.2'].toString(), n['PID.9.3'].toString()));
}
var home = pid['PID.13']['PID.13.1'].toString() != '';
for each (var t in home ? pid['PID.13'] : pid['PID.14']) {
    var at = home ? 'PID.13' : 'PID.14';
    patient.telecom.push({ system: phoneSystems[t[at + '.3'].toString()], value: t[at + '.1'].toString(), use: phoneUses[t[at + '.2'].toString()] });
}
patient.gender = genders[pid['PID.8']['PID.8.1'].toString()] || 'unknown';
patient.birthDate = date(pid['PID.7']['PID.7.1'].toString());

channelMap.put('patient', JSON.stringify(patient));

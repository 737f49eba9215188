// Runs transformer.js (Rhino, E4X) and expressions.yaml (JEXL) as they stand and with each mistake.
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.apache.commons.jexl3.JexlBuilder;
import org.apache.commons.jexl3.JexlEngine;
import org.apache.commons.jexl3.MapContext;
import org.apache.commons.jexl3.introspection.JexlPermissions;
import org.mozilla.javascript.Context;
import org.mozilla.javascript.ScriptableObject;
import org.yaml.snakeyaml.Yaml;

public class Try {
    /** What became of one attempt. */
    record Outcome(String when, String says, Object made) {}

    interface Language {
        Outcome attempt(String text);
    }

    /** What the channel's steps write into. */
    public static class Results {
        public final Map<String, String> values = new LinkedHashMap<>();

        public void put(String key, String value) {
            values.put(key, value);
        }
    }

    /** The functions of the expressions: a converter's own Java. */
    public static class Functions {
        public List<Object> list(Object... values) {
            return Arrays.stream(values).filter(Objects::nonNull).toList();
        }

        public List<Object> concat(List<?> a, List<?> b) {
            List<Object> all = new ArrayList<>();
            if (a != null) all.addAll(a);
            if (b != null) all.addAll(b);
            return all;
        }

        public String date(String ts) {
            if (ts == null || ts.length() < 8) return null;
            return ts.substring(0, 4) + "-" + ts.substring(4, 6) + "-" + ts.substring(6, 8);
        }
    }

    static List<String[]> segments;

    public static void main(String[] args) throws Exception {
        Path folder = Path.of(args[0]);
        segments = Files.readAllLines(folder.resolve("admit.hl7")).stream().filter(l -> !l.isBlank()).map(l -> l.split("\\|", -1)).toList();
        String mistakes = Files.readString(folder.resolve("mistakes.json"));
        // JSON is YAML.
        List<Map<String, Object>> all = new Yaml().load(mistakes);
        all("javascript", Files.readString(folder.resolve("transformer.js")), all, Try::javascript);
        String expressions = Files.readString(folder.resolve("expressions.yaml"));
        all("jexl", expressions, all, text -> jexl(text, new JexlBuilder().permissions(JexlPermissions.UNRESTRICTED).create()));
        all("jexl-strict", expressions, "jexl", all, text -> jexl(text, new JexlBuilder().permissions(JexlPermissions.UNRESTRICTED).strict(true).safe(false).create()));
    }

    static void all(String language, String text, List<Map<String, Object>> mistakes, Language it) {
        all(language, text, language, mistakes, it);
    }

    static void all(String name, String text, String language, List<Map<String, Object>> mistakes, Language it) {
        Outcome good = it.attempt(text);
        System.out.println(json(row(name, null, good)));
        for (Map<String, Object> mistake : mistakes) {
            List<?> edit = (List<?>) mistake.get(language);
            String from = (String) edit.get(0);
            if (!text.contains(from)) throw new IllegalStateException(mistake.get("mistake") + ": " + from + " is not in the file");
            Outcome tried = it.attempt(text.replace(from, (String) edit.get(1)));
            Map<String, Object> row = row(name, mistake.get("mistake"), tried);
            row.remove("made");
            if (tried.made() instanceof Map<?, ?> made && good.made() instanceof Map<?, ?> wanted) {
                Map<Object, Object> changed = new LinkedHashMap<>(made);
                changed.entrySet().removeIf(e -> json(e.getValue()).equals(json(wanted.get(e.getKey()))));
                row.put("changed", changed);
                row.put("lost", wanted.keySet().stream().filter(k -> !made.containsKey(k)).toList());
            }
            System.out.println(json(row));
        }
    }

    static Map<String, Object> row(String language, Object mistake, Outcome outcome) {
        Map<String, Object> row = new LinkedHashMap<>();
        row.put("language", language);
        row.put("mistake", mistake);
        row.put("when", outcome.when());
        if (outcome.says() != null) row.put("says", outcome.says().lines().findFirst().orElse(""));
        if (outcome.made() != null) row.put("made", outcome.made());
        return row;
    }

    /** The message as XML: an element per field and repetition, in it an element per component. */
    static String xml() {
        StringBuilder xml = new StringBuilder("<HL7Message>");
        for (String[] fields : segments) {
            String name = fields[0];
            xml.append('<').append(name).append('>');
            for (int n = 1; n < fields.length; n++) {
                int number = name.equals("MSH") ? n + 1 : n;
                if (name.equals("MSH") && n == 1) continue;
                for (String repetition : fields[n].split("~", -1)) {
                    String tag = name + "." + number;
                    xml.append('<').append(tag).append('>');
                    String[] parts = repetition.split("\\^", -1);
                    for (int c = 1; c <= parts.length; c++) {
                        if (!parts[c - 1].isEmpty()) {
                            String part = parts[c - 1].replace("&", "&amp;").replace("<", "&lt;");
                            xml.append('<').append(tag).append('.').append(c).append('>').append(part).append("</").append(tag).append('.').append(c).append('>');
                        }
                    }
                    xml.append("</").append(tag).append('>');
                }
            }
            xml.append("</").append(name).append('>');
        }
        return xml.append("</HL7Message>").toString();
    }

    static Outcome javascript(String text) {
        Context context = Context.enter();
        try {
            context.setLanguageVersion(Context.VERSION_ES6);
            ScriptableObject scope = context.initStandardObjects();
            Results results = new Results();
            scope.put("channelMap", scope, Context.javaToJS(results, scope));
            context.evaluateString(scope, "var msg = new XML('" + xml().replace("\\", "\\\\").replace("'", "\\'") + "');", "message", 1, null);
            org.mozilla.javascript.Script script;
            try {
                script = context.compileString(text, "transformer.js", 1, null);
            } catch (RuntimeException e) {
                return new Outcome("before", e.getMessage(), null);
            }
            try {
                script.exec(context, scope);
            } catch (RuntimeException e) {
                return new Outcome("run time", e.getMessage(), null);
            }
            return new Outcome("never", null, new Yaml().load(results.values.get("patient")) instanceof Map<?, ?> m ? text(m) : null);
        } finally {
            Context.exit();
        }
    }

    /** YAML reads dates; they are text here. */
    static Object text(Object value) {
        if (value instanceof Map<?, ?> map) {
            Map<Object, Object> all = new LinkedHashMap<>();
            map.forEach((k, v) -> all.put(k, text(v)));
            return all;
        }
        if (value instanceof List<?> list) return list.stream().map(Try::text).toList();
        if (value instanceof java.util.Date date) return date.toInstant().toString().substring(0, 10);
        return value;
    }

    static Outcome jexl(String text, JexlEngine engine) {
        Map<String, Object> elements;
        List<Runnable> steps = new ArrayList<>();
        Map<String, Object> made = new LinkedHashMap<>();
        made.put("resourceType", "Patient");
        MapContext context = new MapContext();
        segments.forEach(fields -> context.set(fields[0], fields(fields)));
        context.set("fn", new Functions());
        context.set("systems", Map.of("HOSP", "https://hosp.example/mrn", "REG", "https://region.example/person"));
        context.set("genders", Map.of("F", "female", "M", "male", "O", "other", "A", "other"));
        context.set("maritalStates", Map.of("M", "M", "S", "S", "D", "D", "W", "W"));
        context.set("phoneSystems", Map.of("PH", "phone", "CP", "phone", "FX", "fax", "Internet", "email"));
        context.set("phoneUses", Map.of("PRN", "home", "WPN", "work"));
        try {
            elements = new Yaml().load(text);
            // All expressions are parsed before the message is looked at.
            elements.forEach((element, value) -> steps.add(step(engine, context, made, element, value)));
        } catch (RuntimeException e) {
            return new Outcome("before", e.getMessage(), null);
        }
        try {
            steps.forEach(Runnable::run);
        } catch (RuntimeException e) {
            return new Outcome("run time", e.getMessage(), null);
        }
        return new Outcome("never", null, made);
    }

    @SuppressWarnings("unchecked")
    static Runnable step(JexlEngine engine, MapContext context, Map<String, Object> made, String element, Object value) {
        if (!(value instanceof Map<?, ?>)) {
            var expression = engine.createExpression(String.valueOf(value));
            return () -> put(made, element, expression.evaluate(context));
        }
        Map<String, Object> parts = new LinkedHashMap<>((Map<String, Object>) value);
        Object each = parts.remove("each");
        var over = each == null ? null : engine.createExpression(String.valueOf(each));
        Map<String, org.apache.commons.jexl3.JexlExpression> expressions = new LinkedHashMap<>();
        parts.forEach((name, text) -> expressions.put(name, engine.createExpression(String.valueOf(text))));
        return () -> {
            List<Object> all = new ArrayList<>();
            Object values = over == null ? List.of("") : over.evaluate(context);
            for (Object it : values instanceof List<?> list ? list : List.of()) {
                context.set("it", it);
                Map<String, Object> one = new LinkedHashMap<>();
                expressions.forEach((name, expression) -> put(one, name, expression.evaluate(context)));
                all.add(one);
            }
            put(made, element, over == null ? all.get(0) : all);
        };
    }

    static void put(Map<String, Object> made, String element, Object value) {
        if (value != null) made.put(element, value);
    }

    /** Fields by number, as lists of repetitions; components by number. */
    static Map<Integer, Object> fields(String[] fields) {
        Map<Integer, Object> all = new LinkedHashMap<>();
        for (int n = 1; n < fields.length; n++) {
            List<Object> repetitions = new ArrayList<>();
            for (String repetition : fields[n].split("~")) {
                Map<Integer, String> parts = new LinkedHashMap<>();
                String[] split = repetition.split("\\^");
                for (int c = 1; c <= split.length; c++) {
                    if (!split[c - 1].isEmpty()) parts.put(c, split[c - 1]);
                }
                if (!parts.isEmpty()) repetitions.add(parts);
            }
            if (!repetitions.isEmpty()) all.put(fields[0].equals("MSH") ? n + 1 : n, repetitions);
        }
        return all;
    }

    static String json(Object value) {
        if (value == null) return "null";
        if (value instanceof Map<?, ?> map) {
            List<String> all = new ArrayList<>();
            map.forEach((k, v) -> all.add(json(String.valueOf(k)) + ":" + json(v)));
            return "{" + String.join(",", all) + "}";
        }
        if (value instanceof List<?> list) return "[" + String.join(",", list.stream().map(Try::json).toList()) + "]";
        if (value instanceof Boolean || value instanceof Number) return value.toString();
        return "\"" + value.toString().replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n") + "\"";
    }
}

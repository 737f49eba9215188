package kiln.tests;

import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.DefaultProfileValidationSupport;
import ca.uhn.fhir.validation.FhirValidator;
import ca.uhn.fhir.validation.ResultSeverityEnum;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.hl7.fhir.common.hapi.validation.support.CommonCodeSystemsTerminologyService;
import org.hl7.fhir.common.hapi.validation.support.InMemoryTerminologyServerValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.SnapshotGeneratingValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.ValidationSupportChain;
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator;
import org.hl7.fhir.r5.utils.validation.constants.BestPracticeWarningLevel;

/**
 * HL7's own validator over files and folders of Bundles and resources (*.json), with the R4 definitions and no network.
 *
 * <p>Prints each error, and how many warnings of each kind there are; `--warnings` prints each of these, too. `--accept FILE` names errors that
 * are explained: a line for each, the message's id, a tab, a part of its text, a tab, the reason. Exits 1 if there was another error,
 * 2 if there was nothing to judge.
 */
public class Judge {
  private record Accepted(String kind, String part, String reason) {}

  private static final ObjectMapper JSON = new ObjectMapper();
  private static final List<Accepted> accepted = new ArrayList<>();
  private static final Map<String, Integer> warnings = new TreeMap<>();
  private static final Map<Accepted, Integer> met = new LinkedHashMap<>();
  private static boolean all = false;
  private static int judged = 0;
  private static int errors = 0;

  public static void main(String[] arguments) throws IOException {
    FhirValidator validator = validator();
    for (int n = 0; n < arguments.length; n++) {
      switch (arguments[n]) {
        case "--warnings" -> all = true;
        case "--accept" -> accept(Path.of(arguments[++n]));
        default -> folder(validator, Path.of(arguments[n]));
      }
    }
    warnings.forEach((kind, count) -> System.out.println(count + " warnings " + kind));
    met.forEach((error, count) -> System.out.println(count + " times explained: " + error.part + ": " + error.reason));
    System.out.println("HL7's validator: " + judged + " Bundles and resources judged, " + errors + " errors");
    System.exit(judged == 0 ? 2 : errors > 0 ? 1 : 0);
  }

  private static FhirValidator validator() {
    var fhir = FhirContext.forR4();
    var support =
        new ValidationSupportChain(
            new DefaultProfileValidationSupport(fhir),
            new InMemoryTerminologyServerValidationSupport(fhir),
            new CommonCodeSystemsTerminologyService(fhir),
            new SnapshotGeneratingValidationSupport(fhir));
    var engine = new FhirInstanceValidator(support);
    // That there should be a narrative is advice.
    engine.setBestPracticeWarningLevel(BestPracticeWarningLevel.Ignore);
    // What a reference names may be on the server.
    engine.setAssumeValidRestReferences(true);
    return fhir.newValidator().registerValidatorModule(engine);
  }

  private static void accept(Path file) throws IOException {
    for (String line : Files.readAllLines(file)) {
      String[] parts = line.split("\t");
      if (parts.length == 3) {
        accepted.add(new Accepted(parts[0], parts[1], parts[2]));
      }
    }
  }

  private static void folder(FhirValidator validator, Path folder) throws IOException {
    try (var found = Files.walk(folder, 1)) {
      for (Path file : (Iterable<Path>) found.filter(f -> f.toString().endsWith(".json")).sorted()::iterator) {
        JsonNode root = JSON.readTree(file.toFile());
        // A file may hold several resources by name; what a run says that made none holds nothing to judge.
        for (JsonNode resource : root.has("resourceType") ? List.of(root) : root) {
          if (resource.has("resourceType")) {
            judge(validator, file.getFileName().toString(), resource.toString());
          }
        }
      }
    }
  }

  private static void judge(FhirValidator validator, String name, String resource) {
    judged++;
    for (var message : validator.validateWithResult(resource).getMessages()) {
      String kind = message.getMessageId() == null ? "without an id" : message.getMessageId();
      boolean isError = message.getSeverity().compareTo(ResultSeverityEnum.ERROR) >= 0;
      boolean isWarning = message.getSeverity() == ResultSeverityEnum.WARNING;
      var known = accepted.stream().filter(a -> a.kind.equals(kind) && message.getMessage().contains(a.part)).findFirst();
      if (isError && known.isPresent()) {
        met.merge(known.get(), 1, Integer::sum);
        continue;
      }
      if (isError || (isWarning && all)) {
        System.out.println(message.getSeverity() + " " + name + ": " + message.getLocationString() + ": " + message.getMessage() + " [" + kind + "]");
      }
      if (isError) {
        errors++;
      } else if (isWarning) {
        warnings.merge(kind, 1, Integer::sum);
      }
    }
  }
}

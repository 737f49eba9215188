// HAPI's client of HL7 over HTTP (hapi-hl7overhttp) sends each message of a file, one line of JSON-like text for each answer:
// java -cp CLASSPATH Send.java HOST PORT PATH USER PASSWORD CHARSET FILE...

import ca.uhn.hl7v2.hoh.auth.SingleCredentialClientCallback;
import ca.uhn.hl7v2.hoh.api.IReceivable;
import ca.uhn.hl7v2.hoh.raw.api.RawSendable;
import ca.uhn.hl7v2.hoh.raw.client.HohRawClientSimple;
import java.nio.charset.Charset;
import java.nio.file.Files;
import java.nio.file.Path;

public class Send {
    public static void main(String[] args) throws Exception {
        HohRawClientSimple client = new HohRawClientSimple(args[0], Integer.parseInt(args[1]), args[2]);
        client.setAutoClose(false);
        client.setCharset(Charset.forName(args[5]));
        if (!args[3].isEmpty()) {
            client.setAuthorizationCallback(new SingleCredentialClientCallback(args[3], args[4]));
        }
        for (int i = 6; i < args.length; i++) {
            String message = Files.readString(Path.of(args[i]));
            try {
                IReceivable<String> answer = client.sendAndReceive(new RawSendable(message));
                System.out.println(answer.getMessage().replace('\r', '~'));
            } catch (Exception fault) {
                System.out.println("fault " + fault.getClass().getSimpleName());
            }
        }
        client.close();
    }
}

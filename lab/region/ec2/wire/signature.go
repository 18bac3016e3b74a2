package wire

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

// skew is how far a request's time may be from ours.
const skew = 15 * time.Minute

// caller is who signed a request, and for which service.
type caller struct {
	Key, Service string
	role         bool
}

// verify tells who signed a request with this body. AWS's own signer makes the signature again, from
// what the request says was signed.
func verify(r *http.Request, body []byte, records *ec2.Records, now time.Time) (caller, error) {
	scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if scheme != "AWS4-HMAC-SHA256" {
		return caller{}, fault("MissingAuthenticationToken", "Request is missing Authentication Token")
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[k] = v
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 {
		return caller{}, fault("IncompleteSignature", "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term")
	}
	who := caller{Key: scope[0], Service: scope[3]}
	keys, ok := records.Credentials, scope[0] == records.Credentials.AccessKeyID
	if !ok {
		keys, ok = records.Role, scope[0] == records.Role.AccessKeyID
		who.role = true
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	switch {
	case !ok || r.Header.Get("X-Amz-Security-Token") != keys.Token:
		return who, unknownKey(who.Service)
	case err != nil || at.After(now.Add(skew)):
		return who, fault("SignatureDoesNotMatch", "Signature not yet current: %q is no time of now", r.Header.Get("X-Amz-Date"))
	case at.Before(now.Add(-skew)):
		return who, fault("RequestExpired", "Request has expired.")
	case scope[2] != records.Region:
		return who, fault("SignatureDoesNotMatch", "Credential should be scoped to a valid region, not '%s'.", scope[2])
	}
	again := signedPart(r, strings.Split(fields["SignedHeaders"], ";"), len(body))
	sum := sha256.Sum256(body)
	credentials := aws.Credentials{AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey, SessionToken: keys.Token}
	if err := v4.NewSigner().SignHTTP(r.Context(), credentials, again, hex.EncodeToString(sum[:]), who.Service, scope[2], at); err != nil {
		return who, fault("IncompleteSignature", "%v", err)
	}
	if subtle.ConstantTimeCompare([]byte(signatureOf(again)), []byte(fields["Signature"])) != 1 {
		return who, badSignature(who.Service)
	}
	return who, nil
}

// signedPart is a request that has of another only what was signed.
func signedPart(r *http.Request, headers []string, length int) *http.Request {
	again := r.Clone(r.Context())
	again.Header = http.Header{}
	again.ContentLength = 0
	again.Body = http.NoBody
	again.URL.Host = r.Host
	for _, h := range headers {
		switch h {
		case "host":
		case "content-length":
			again.ContentLength = int64(length)
		default:
			again.Header[http.CanonicalHeaderKey(h)] = r.Header.Values(h)
		}
	}
	return again
}

func signatureOf(r *http.Request) string {
	_, signature, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
	return signature
}

// EC2 says the same to an unknown key and to a wrong one; STS tells them apart.

func unknownKey(service string) error {
	if service == serviceSTS {
		return fault("InvalidClientTokenId", "The security token included in the request is invalid.")
	}
	return fault("AuthFailure", "AWS was not able to validate the provided access credentials")
}

func badSignature(service string) error {
	if service == serviceSTS {
		return fault("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return unknownKey(service)
}

// readBody reads what was sent, and no more than any request needs.
func readBody(r *http.Request) ([]byte, error) {
	const limit = 1 << 20
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(r.Body, limit+1)); err != nil {
		return nil, fault("IncompleteBody", "The request was cut off: %v", err)
	}
	if b.Len() > limit {
		return nil, fault("RequestEntityTooLarge", "The request is larger than %d bytes", limit)
	}
	return b.Bytes(), nil
}

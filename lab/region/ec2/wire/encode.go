package wire

import (
	"bytes"
	"encoding/xml"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

// statuses of codes whose status is not 400.
var statuses = map[string]int{
	"AuthFailure":                http.StatusUnauthorized,
	"DryRunOperation":            http.StatusPreconditionFailed,
	"InternalError":              http.StatusInternalServerError,
	"InvalidClientTokenId":       http.StatusForbidden,
	"MissingAuthenticationToken": http.StatusForbidden,
	"OptInRequired":              http.StatusUnauthorized,
	"RequestLimitExceeded":       http.StatusServiceUnavailable,
	"SignatureDoesNotMatch":      http.StatusForbidden,
	"UnauthorizedOperation":      http.StatusForbidden,
	"Unavailable":                http.StatusServiceUnavailable,
}

// encode makes the body of an answer, or of an error.
func encode(service, action string, answer any, err error) (status int, body []byte) {
	id := uuid.NewString()
	if err == nil {
		body, err = encodeAnswer(service, action, id, answer)
	}
	if err == nil {
		return http.StatusOK, body
	}
	refused := &ec2.Error{Code: "InternalError", Message: "An internal error has occurred: " + err.Error()}
	errors.As(err, &refused)
	status = http.StatusBadRequest
	if s, ok := statuses[refused.Code]; ok {
		status = s
	}
	type detail struct {
		Type    string `xml:",omitempty"`
		Code    string
		Message string
	}
	var document any
	if service == serviceSTS {
		document = struct {
			XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
			Error     detail
			RequestID string `xml:"RequestId"`
		}{Error: detail{"Sender", refused.Code, refused.Message}, RequestID: id}
	} else {
		document = struct {
			XMLName   xml.Name `xml:"Response"`
			Error     detail   `xml:"Errors>Error"`
			RequestID string
		}{Error: detail{"", refused.Code, refused.Message}, RequestID: id}
	}
	body, err = xml.Marshal(document)
	if err != nil {
		return http.StatusInternalServerError, nil
	}
	return status, append([]byte(xml.Header), body...)
}

// reply is what every answer has.
type reply struct {
	XMLNS     string `xml:"xmlns,attr"`
	RequestID string `xml:"requestId"`
}

func (r *reply) stamp(namespace, id string) { r.XMLNS, r.RequestID = namespace, id }

func encodeAnswer(service, action, id string, answer any) ([]byte, error) {
	namespace := "http://ec2.amazonaws.com/doc/" + versionEC2 + "/"
	if service == serviceSTS {
		namespace = "https://sts.amazonaws.com/doc/2011-06-15/"
	}
	answer.(interface{ stamp(namespace, id string) }).stamp(namespace, id)
	var b bytes.Buffer
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	err := e.EncodeElement(answer, xml.StartElement{Name: xml.Name{Local: action + "Response"}})
	return b.Bytes(), err
}

// set is a list; one without items is there, but empty.
type set[T any] struct {
	Items []T `xml:"item"`
}

// done is the answer of what has no other.
type done struct {
	reply
	Return bool `xml:"return"`
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

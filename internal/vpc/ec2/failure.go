package ec2

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/zonewise/zonewise/internal/vpc"
)

// failures has the error codes of EC2 that mean more than that it does not take what it was asked.
var failures = map[string]vpc.Failure{
	"RequestLimitExceeded": vpc.Throttled, "Throttling": vpc.Throttled, "ThrottlingException": vpc.Throttled,
	"EC2ThrottledException": vpc.Throttled, "RequestThrottled": vpc.Throttled, "SlowDown": vpc.Throttled,
	"BandwidthLimitExceeded": vpc.Throttled,

	"PrivateIpAddressLimitExceeded": vpc.Limit, "AttachmentLimitExceeded": vpc.Limit,
	"NetworkInterfaceLimitExceeded": vpc.Limit, "ResourceLimitExceeded": vpc.Limit,

	"InsufficientFreeAddressesInSubnet": vpc.SubnetFull, "InsufficientCidrBlocks": vpc.Fragmented,

	"AuthFailure": vpc.Credentials, "SignatureDoesNotMatch": vpc.Credentials, "InvalidClientTokenId": vpc.Credentials,
	"UnrecognizedClientException": vpc.Credentials, "ExpiredToken": vpc.Credentials, "ExpiredTokenException": vpc.Credentials,
	"RequestExpired": vpc.Credentials, "MissingAuthenticationToken": vpc.Credentials, "IncompleteSignature": vpc.Credentials,
	"InvalidAccessKeyId": vpc.Credentials,

	"UnauthorizedOperation": vpc.Denied, "Blocked": vpc.Denied, "OptInRequired": vpc.Denied, "PendingVerification": vpc.Denied,
	"AccessDenied": vpc.Denied, "AccessDeniedException": vpc.Denied,

	"InvalidNetworkInterfaceID.NotFound": vpc.Gone, "InvalidAttachmentID.NotFound": vpc.Gone,
	"InvalidInstanceID.NotFound": vpc.Gone, "InvalidSubnetID.NotFound": vpc.Gone, "InvalidGroup.NotFound": vpc.Gone,

	"InternalError": vpc.Away, "InternalFailure": vpc.Away, "ServiceUnavailable": vpc.Away, "Unavailable": vpc.Away,
	"RequestTimeout": vpc.Away,
}

// Classify tells what an error of the door means. After one of kind Away nobody knows whether it was done: look again.
func Classify(err error) vpc.Failure {
	var api smithy.APIError
	var response *smithyhttp.ResponseError
	switch {
	case err == nil:
		return vpc.OK
	case errors.Is(err, errCredentials):
		return vpc.Credentials
	case errors.As(err, &api) && failures[api.ErrorCode()] != vpc.OK:
		return failures[api.ErrorCode()]
	case errors.As(err, &response):
		return ofStatus(response.HTTPStatusCode())
	}
	return vpc.Away
}

func ofStatus(status int) vpc.Failure {
	switch status {
	case http.StatusNotFound:
		return vpc.Gone
	case http.StatusUnauthorized:
		return vpc.Credentials
	case http.StatusForbidden:
		return vpc.Denied
	case http.StatusTooManyRequests:
		return vpc.Throttled
	case http.StatusBadRequest:
		return vpc.Invalid
	}
	return vpc.Away
}

// failed is a call of EC2 that was not answered as hoped.
type failed struct {
	call string
	err  error
}

func (f *failed) Error() string { return f.call + ": " + f.err.Error() }
func (f *failed) Unwrap() error { return f.err }

// CallOf names the call of EC2 that failed. Where a permission is lacking it is the one that it is of: who makes an
// interface with tags needs that of making tags, too.
func CallOf(err error) string {
	f, ok := errors.AsType[*failed](err)
	if !ok {
		return ""
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok && Classify(err) == vpc.Denied {
		if _, rest, says := strings.Cut(api.ErrorMessage(), "not authorized to perform: ec2:"); says {
			if name, _, _ := strings.Cut(rest, " "); name != "" {
				return name
			}
		}
	}
	return f.call
}

// inUse tells whether EC2 does not delete an interface because it is still attached. It has a code for that, and a
// sentence under a code that means many things.
func inUse(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && (strings.HasSuffix(api.ErrorCode(), ".InUse") || strings.Contains(api.ErrorMessage(), "currently in use"))
}

// notThere tells whether EC2 does not take an address away because the interface does not have it.
func notThere(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && strings.Contains(api.ErrorMessage(), "are not assigned to")
}

// short takes the frames of the SDK off an error, and leaves what the cloud said.
func short(err error) error {
	var api smithy.APIError
	var operation *smithy.OperationError
	switch {
	case errors.As(err, &api):
		return said{api, err}
	case errors.Is(err, context.DeadlineExceeded):
		return errNoAnswer
	case errors.As(err, &operation):
		return operation.Err
	}
	return err
}

// said is an error of the cloud in its own words.
type said struct {
	smithy.APIError
	whole error
}

func (s said) Error() string {
	// Permissions that are missing come with a message of a thousand characters, encoded for another call.
	text, _, _ := strings.Cut(s.ErrorMessage(), " Encoded authorization failure message")
	return s.ErrorCode() + ": " + text
}

func (s said) Unwrap() error { return s.whole }

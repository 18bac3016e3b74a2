// Package wire serves the records of a region as EC2's Query API, version 2016-11-15, and as much of
// STS's as clients ask for to know who they are. Answers are those that AWS's own clients parse.
package wire

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

const (
	serviceEC2 = "ec2"
	serviceSTS = "sts"
	versionEC2 = "2016-11-15"
)

// Options of a server.
type Options struct {
	Faults Faults
	// Called is told of every request that was answered, or dropped. It must not wait.
	Called func(Call)
}

// Faults are what can go wrong with a cloud, for those who must bear it. The zero value is a cloud
// without any.
type Faults struct {
	Latency     time.Duration // before every answer
	Away        bool          // connections are closed without an answer
	Unavailable bool          // every answer is 503 Unavailable
	Truncated   bool          // answers break off in the middle
	Describe    Rate          // of calls that change nothing
	Mutate      Rate          // of calls that change something
	Revoked     bool          // the keys of the instances' role are not accepted
	Denied      []string      // actions that the instances' role may not do
}

// Rate is a bucket of so many calls that fills again at so many each second; the zero value has no limit.
type Rate struct {
	PerSecond float64
	Burst     int
}

// The limits that AWS documents for an account in a region.
var (
	AWSDescribe = Rate{PerSecond: 20, Burst: 100}
	AWSMutate   = Rate{PerSecond: 5, Burst: 50}
)

func (r Rate) limiter() *rate.Limiter {
	if r == (Rate{}) {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst)
}

// Call is one request as it went. Code is empty where it was answered as asked.
type Call struct {
	At           time.Time
	Took         time.Duration
	From         netip.Addr
	Key          string // access key
	Action, Code string
}

// Server answers for a region.
type Server struct {
	cloud  *ec2.Cloud
	called func(Call)

	mu               sync.Mutex
	faults           Faults
	describe, mutate *rate.Limiter
}

// New makes a server of a region's records.
func New(cloud *ec2.Cloud, o Options) *Server {
	s := &Server{cloud: cloud, called: o.Called}
	if s.called == nil {
		s.called = func(Call) {}
	}
	s.Set(o.Faults)
	return s
}

// Set changes what goes wrong from now on; buckets are full again.
func (s *Server) Set(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.describe, s.mutate = f, f.Describe.limiter(), f.Mutate.limiter()
}

// Faults are what goes wrong now.
func (s *Server) Faults() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// throttle takes one call of a kind out of its bucket.
func (s *Server) throttle(mutates bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	limiter := s.describe
	if mutates {
		limiter = s.mutate
	}
	if !limiter.AllowN(s.cloud.Now(), 1) {
		return fault("RequestLimitExceeded", "Request limit exceeded.")
	}
	return nil
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	faults, began := s.Faults(), s.cloud.Now()
	call := Call{At: began, From: from(r)}
	defer func() {
		call.Took = s.cloud.Now().Sub(began)
		s.called(call)
	}()
	if faults.Latency > 0 {
		late := time.NewTimer(faults.Latency)
		defer late.Stop()
		select {
		case <-late.C:
		case <-r.Context().Done():
		}
	}
	if faults.Away {
		call.Code = "Away"
		panic(http.ErrAbortHandler) // net/http's way to close a connection without an answer
	}
	service := serviceEC2
	answer, err := any(nil), error(nil)
	if faults.Unavailable {
		err = fault("Unavailable", "The service is unavailable. Please try again shortly.")
	} else {
		service, answer, err = s.answer(r, &call)
	}
	if refused := (*ec2.Error)(nil); errors.As(err, &refused) {
		call.Code = refused.Code
	} else if err != nil {
		call.Code = "InternalError"
	}
	status, body := encode(service, call.Action, answer, err)
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.WriteHeader(status)
	if faults.Truncated {
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body) // who went away needs no answer
}

// answer finds out who asks for what, and does it.
func (s *Server) answer(r *http.Request, call *Call) (service string, answer any, err error) {
	service = serviceEC2
	body, err := readBody(r)
	if err != nil {
		return service, nil, err
	}
	faults := s.Faults()
	who, err := verify(r, body, s.cloud.Records(), s.cloud.Now())
	if who.Service == serviceSTS {
		service = serviceSTS
	}
	if err == nil && who.role && faults.Revoked {
		err = unknownKey(who.Service)
	}
	call.Key = who.Key
	values := r.URL.Query()
	if r.Method == http.MethodPost {
		form, bad := url.ParseQuery(string(body))
		if bad != nil && err == nil {
			err = fault("MalformedQueryString", "The query string contains a syntax error: %v", bad)
		}
		for k, v := range form {
			values[k] = v
		}
	}
	call.Action = values.Get("Action")
	if err != nil {
		return service, nil, err
	}
	q, err := parse(values)
	if err != nil {
		return service, nil, err
	}
	if service == serviceSTS {
		answer, err = s.sts(who, q)
		return service, answer, err
	}
	switch v := q.text("Version"); {
	case call.Action == "":
		return service, nil, fault("MissingAction", "The request must contain the parameter Action")
	case v != versionEC2:
		return service, nil, fault("NoSuchVersion", "The requested version (%s) of service AmazonEC2 does not exist", v)
	}
	do, ok := actions[call.Action]
	if !ok {
		return service, nil, fault("InvalidAction", "The action %s is not valid for this web service.", call.Action)
	}
	if err := s.throttle(do.mutates); err != nil {
		return service, nil, err
	}
	if who.role && slices.Contains(faults.Denied, call.Action) {
		return service, nil, denied(call.Action)
	}
	if q.yes("DryRun") {
		return service, nil, fault("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
	}
	answer, err = do.run(s, q)
	return service, answer, err
}

// denied says at length what is lacking, as EC2 does; the part in a code of its own is for another call to read.
func denied(action string) error {
	return fault("UnauthorizedOperation", "You are not authorized to perform this operation. User: arn:aws:sts::%s:assumed-role/%s/instance is not authorized "+
		"to perform: ec2:%s because no identity-based policy allows the ec2:%s action. Encoded authorization failure message: %s",
		ec2.Account, ec2.RoleName, action, action, strings.Repeat("0", 600))
}

// Knows tells whether there is such an action.
func Knows(name string) bool {
	_, ok := actions[name]
	return ok
}

func from(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddrPort(r.RemoteAddr) // zero where there is none, as for a socket in the file system
	return a.Addr().Unmap()
}

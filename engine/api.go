package engine

import (
	"fmt"
	"strings"
)

// API names an API whose client is answered, so that the answer is one that the client understands.
type API uint8

// The APIs.
const (
	APINone      API = iota // none is named
	APIAnthropic            // Anthropic's: Messages
	APIOpenAI               // OpenAI's: Chat Completions, Responses
)

// apiNamed returns the API with a name; APINone if there is no such.
func apiNamed(name string) API {
	switch name {
	case "anthropic":
		return APIAnthropic
	case "openai":
		return APIOpenAI
	}
	return APINone
}

// addressee notes whose client is answered, and the id by which that client knows the request.
func (s *scratch) addressee(d *Decision) error {
	for i := range s.asked {
		switch api := s.asked[i].api; {
		case api == APINone:
		case d.API == APINone:
			d.API = api
		case d.API != api:
			return &InvalidError{
				Field:  fmt.Sprintf("descriptors[%d].entries", i),
				Reason: "ration.api differs from that of another descriptor: a request is made to one API, so name one",
			}
		}
	}
	if d.API == APINone {
		return nil
	}
	for i := range s.asked {
		if id := s.asked[i].request; id != "" {
			d.RequestID = strings.Clone(id)
			break
		}
	}
	return nil
}

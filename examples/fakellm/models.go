package main

import (
	"net/http"
	"slices"
	"time"
)

// sampleModels are listed where any model is served.
var sampleModels = [...]string{
	"claude-haiku-4-5", "claude-opus-4-5", "claude-sonnet-4-5", "gpt-5", "gpt-5-mini", "gpt-5-nano",
}

// released is when every model of this service appeared.
var released = time.Date(2025, time.October, 1, 0, 0, 0, 0, time.UTC)

type anthropicModel struct {
	Type        string    `json:"type"`
	ID          string    `json:"id"`
	DisplayName string    `json:"display_name"`
	CreatedAt   time.Time `json:"created_at"`
	Lifecycle   string    `json:"lifecycle"`
}

type openAIModel struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

// modelDialect is the API in which somebody asks for models. The path is the same at both providers; only one of them
// wants a version to be named.
func modelDialect(r *http.Request) dialect {
	if r.Header.Get("Anthropic-Version") != "" {
		return anthropic{}
	}
	return chat{}
}

func model(d dialect, id string) any {
	if d.provider() == (anthropic{}).provider() {
		return anthropicModel{Type: "model", ID: id, DisplayName: id, CreatedAt: released, Lifecycle: "active"}
	}
	return openAIModel{ID: id, Object: "model", Created: released.Unix(), OwnedBy: "system"}
}

// listModels answers in one page.
func (s *server) listModels(w http.ResponseWriter, r *http.Request) {
	c, f := s.aside(w, r, modelDialect(r))
	if f != nil {
		c.answerFault(f)
		return
	}
	ids := s.options.Models
	if ids == nil {
		ids = sampleModels[:]
	}
	list := []any{}
	for _, id := range ids {
		list = append(list, model(c.dialect, id))
	}
	page := object{{"object", "list"}, {"data", list}}
	if c.dialect.provider() == (anthropic{}).provider() {
		page = object{{"data", list}, {"has_more", false}, {"first_id", ids[0]}, {"last_id", ids[len(ids)-1]}}
	}
	c.answerAside(page)
}

func (s *server) showModel(w http.ResponseWriter, r *http.Request) {
	c, f := s.aside(w, r, modelDialect(r))
	id := r.PathValue("model")
	if f == nil {
		f = s.unserved(id)
	}
	if f != nil {
		c.answerFault(f)
		return
	}
	c.answerAside(model(c.dialect, id))
}

// unserved is the fault of a model that is not among those served.
func (s *server) unserved(model string) *fault {
	if s.options.Models == nil || slices.Contains(s.options.Models, model) {
		return nil
	}
	return &fault{status: http.StatusNotFound, param: "model", code: "model_not_found", message: "model: " + model}
}

// countTokens tells how large a prompt is. As at Anthropic it has no part in the limits of messages.
func (s *server) countTokens(w http.ResponseWriter, r *http.Request) {
	d := anthropic{}
	c, f := s.aside(w, r, d)
	if f != nil {
		c.answerFault(f)
		return
	}
	a, _, f := d.readPrompt(r, c.body)
	if f == nil {
		f = s.unserved(a.model)
	}
	if f != nil {
		c.answerFault(f)
		return
	}
	said, err := s.scriptFor(a, r)
	if err != nil {
		c.answerFault(invalid("", err.Error()))
		return
	}
	c.answerAside(object{{"input_tokens", planFor(a, said).tokens.wholePrompt()}})
}

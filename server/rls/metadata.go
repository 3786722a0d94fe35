package rls

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server/headers"
)

// encodeMetadata describes the request, and what the rules that admitted it have to say, as the
// established contract does under RESPONSE_DYNAMIC_METADATA. It never changes a loaded policy.
func encodeMetadata(request *engine.Request, d *engine.Decision) ([]byte, error) {
	descriptors := make([]any, len(request.Descriptors))
	for i := range request.Descriptors {
		descriptors[i] = describe(&request.Descriptors[i])
	}
	fields := map[string]any{"domain": request.Domain, "descriptors": descriptors}
	if request.Hits != 0 {
		fields["hitsAddend"] = float64(request.Hits)
	}
	if merged := mergedMetadata(d); len(merged) > 0 {
		fields["metadata"] = merged
	}
	if len(d.Limits) > 0 {
		fields["limits"] = describeLimits(d)
	}
	switch {
	case d.Queued:
		fields["degraded"] = headers.Queued
	case d.Degraded != policy.StoreErrorNone:
		fields["degraded"] = d.Degraded.String()
	}
	if d.Tier != nil {
		fields["tier"] = d.Tier.Name
		if d.Tier.Attributes != nil {
			fields["attributes"] = d.Tier.Attributes
		}
	}
	message, err := structpb.NewStruct(fields)
	if err != nil {
		return nil, fmt.Errorf("describe the request: %w", err)
	}
	encoded, err := proto.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("describe the request: %w", err)
	}
	return encoded, nil
}

func describe(d *engine.Descriptor) map[string]any {
	entries := make([]any, len(d.Entries))
	for i, e := range d.Entries {
		value := e.Value
		if e.Key == engine.KeyEntry {
			value = "[hidden]" // an API key
		}
		entries[i] = e.Key + "=" + value
	}
	fields := map[string]any{"entries": entries}
	if d.Override != nil {
		fields["limit"] = fmt.Sprintf("requests_per_unit:%d unit:%d", d.Override.RequestsPerUnit, d.Override.Unit)
	}
	if d.HasHits {
		fields["hitsAddend"] = float64(d.Hits)
	}
	return fields
}

// describeLimits says how every limit of a `limits:` list stands that the request was measured by: a
// status of Envoy's has room for one of them only, and for 32 bits of it. Amounts of money are strings
// in dollars, since the numbers of a Struct are floating point.
func describeLimits(d *engine.Decision) []any {
	limits := make([]any, len(d.Limits))
	for i := range d.Limits {
		a := &d.Limits[i]
		meter := a.Limit.Meter
		amount := func(n int64) any { return float64(n) }
		fields := map[string]any{"name": a.Limit.Name, "meter": meter.String()}
		if meter == policy.Cost {
			amount = func(n int64) any { return meter.Decimal(n) }
			fields["unit"] = policy.Currency
		}
		fields["limit"] = amount(a.Quantity.Spec.Ceiling())
		if a.Unavailable {
			fields["unavailable"] = true // how it stands is not known
		} else {
			fields["used"], fields["held"] = amount(a.Status.Used), amount(a.Status.Held)
			fields["remaining"] = amount(a.Status.Remaining)
			fields["reset_after_ms"] = float64(a.Status.ResetAfter.Milliseconds())
		}
		if a.Over {
			fields["over"] = true
			if !a.Never() {
				fields["retry_after_ms"] = float64(a.Status.RetryAfter.Milliseconds())
				fields["estimated"] = a.Status.Estimated
			}
		}
		limits[i] = fields
	}
	return limits
}

// mergedMetadata merges the metadata of the rules that admitted: of scalars the first one stands,
// maps are merged.
func mergedMetadata(d *engine.Decision) map[string]any {
	merged := map[string]any{}
	for i := range d.Statuses {
		if s := &d.Statuses[i]; s.Limited && !s.Over && s.Rule != nil {
			merge(merged, s.Rule.Metadata)
		}
	}
	return merged
}

func merge(into, from map[string]any) {
	for key, value := range from {
		inner, isMap := value.(map[string]any)
		existing, taken := into[key]
		switch {
		case !taken && isMap:
			fresh := map[string]any{}
			merge(fresh, inner)
			into[key] = fresh
		case !taken:
			into[key] = value
		case isMap:
			if both, ok := existing.(map[string]any); ok {
				merge(both, inner)
			}
		}
	}
}

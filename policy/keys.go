package policy

import "slices"

// site is a kind of mapping in a policy file.
type site string

const (
	inRoot       site = "the top of the file"
	inDescriptor site = "a descriptor"
	inRateLimit  site = "rate_limit"
	inReplaces   site = "replaces"
	inTier       site = "an entry of the top's `tiers`"
	inLimit      site = "an entry of `limits`"
	inQuantity   site = "a tier of a limit"
	inAnchor     site = "`anchor`"
	inUpstream   site = "an entry of `upstreams`"
	inLane       site = "an entry of `lanes`"
	inWaiting    site = "`max_waiting`"
	inSubject    site = "an entry of `subjects`"
	inPrices     site = "`prices`"
	inPrice      site = "a price of `models`"
	inAnonymous  site = "`anonymous`"
	inUsage      site = "`usage`"
	inKeep       site = "`keep`"
)

// knownKeys are the keys of the established language and where they mean something. detailed_metric
// and value_to_metric shape the names of statsd metrics, which is why nothing reads them here.
var knownKeys = map[string][]site{
	"domain":            {inRoot},
	"descriptors":       {inRoot, inDescriptor},
	"key":               {inDescriptor},
	"value":             {inDescriptor},
	"rate_limit":        {inDescriptor},
	"shadow_mode":       {inDescriptor},
	"quota_mode":        {inDescriptor},
	"metadata":          {inDescriptor},
	"detailed_metric":   {inDescriptor},
	"value_to_metric":   {inDescriptor},
	"share_threshold":   {inDescriptor},
	"unit":              {inRateLimit},
	"requests_per_unit": {inRateLimit},
	"unlimited":         {inRateLimit},
	"name":              {inRateLimit, inReplaces},
	"replaces":          {inRateLimit},
}

// ownKeys are the keys that ration adds, and where they mean something. The established language knows
// none of them.
var ownKeys = map[string][]site{
	"tiers":            {inRoot, inLimit},
	"trust_tier":       {inRoot},
	"anonymous":        {inRoot},
	"limits":           {inRoot, inDescriptor, inUpstream},
	"upstreams":        {inRoot},
	"lanes":            {inRoot},
	"subjects":         {inRoot},
	"prices":           {inRoot},
	"usage":            {inRoot},
	"retry_up_to":      {inRoot},
	"exhausted_status": {inRoot},
	"on_failure":       {inRoot},
	"subject":          {inDescriptor},

	"name":       {inTier, inLimit, inUpstream, inLane},
	"attributes": {inTier},
	"models":     {inUpstream, inPrices},
	"tier":       {inSubject},
	"time_zone":  {inLimit, inSubject},

	"meter":            {inLimit},
	"algorithm":        {inLimit},
	"starts":           {inLimit},
	"week_start":       {inLimit},
	"anchor":           {inLimit, inSubject},
	"day":              {inAnchor},
	"month":            {inAnchor},
	"shadow":           {inLimit},
	"clamp":            {inLimit},
	"count_denied":     {inLimit},
	"count_cache_read": {inLimit},
	"counts":           {inLimit},
	"on_lapse":         {inLimit},
	"on_store_error":   {inLimit, inLane},
	"local_share":      {inLimit},
	"warn_at":          {inLimit},

	"upstream":       {inLane},
	"drain":          {inLane},
	"max_concurrent": {inLane},
	"max_wait":       {inLane},
	"max_waiting":    {inLane},
	"total":          {inWaiting},
	"per_subject":    {inWaiting},
	"order":          {inLane},
	"aging":          {inLane},
	"weighted":       {inLane},
	"turns_by":       {inLane},

	"by": {inAnonymous},

	"tags":          {inUsage},
	"keep":          {inUsage},
	"hourly":        {inKeep},
	"daily":         {inKeep},
	"domain_hourly": {inKeep},
	"domain_daily":  {inKeep},

	"book":          {inPrices},
	"unknown_model": {inPrices},
	"from":          {inPrice},
	"input":         {inPrice},
	"output":        {inPrice},
	"cache_read":    {inPrice},
	"cache_write":   {inPrice},
	"max_output":    {inPrice},

	"limit":       {inLimit, inQuantity},
	"rate":        {inLimit, inQuantity},
	"burst":       {inLimit, inQuantity},
	"per_request": {inLimit, inQuantity},
	"ceiling":     {inLimit, inQuantity},
	"message":     {inLimit, inQuantity},
	"upgrade_url": {inLimit, inQuantity},
}

// nearKeys are keys of the established language and what a limit has in their place.
var nearKeys = map[string]string{"shadow_mode": "shadow", "unit": "limit", "requests_per_unit": "limit"}

// sortedKeys are the keys that may stand in the parts of a file that the established language has too.
var sortedKeys = keysOf(inRoot, inDescriptor, inRateLimit, inReplaces)

// keysOf returns the keys that mean something in one of the sites, sorted.
func keysOf(sites ...site) []string {
	var keys []string
	for _, table := range []map[string][]site{knownKeys, ownKeys} {
		for key, in := range table {
			if slices.ContainsFunc(in, func(s site) bool { return slices.Contains(sites, s) }) {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// standsOutside reports whether a key of ration's stands beside keys of the established language.
func standsOutside(key string) bool {
	return slices.Contains(ownKeys[key], inRoot) || slices.Contains(ownKeys[key], inDescriptor)
}

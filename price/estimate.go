package price

import (
	"math"

	"github.com/rationhq/ration/limit"
)

// charactersPerToken is how long a token of text is, where only the length of the text is known.
const charactersPerToken = 4

// Prompt is what is known of a call before it is made.
type Prompt struct {
	// Tokens is the length of the prompt where the caller has counted it. It wins over Characters.
	Tokens int64
	// Characters is the length of the prompt as text, of which four are a token.
	Characters int64
	// OutputCaps are all the limits of the output that the request names, under whatever name: the largest
	// counts, so that a small one beside it cannot hide it. A negative one says that there is no limit
	// (Ollama's −1): the model's own maximum counts among them.
	OutputCaps []int64
	// Choices are all the numbers of answers that the request asks for, under whatever name: the largest
	// counts. Each answer may be as long as the cap allows. None, or less than 1, is one answer.
	Choices []int64
}

// OutputCapFields returns the names under which the request bodies of providers carry a limit of the output,
// for [Prompt.OutputCaps]. A name with a point stands for a field inside an object.
func OutputCapFields() []string {
	return []string{
		"max_tokens",            // OpenAI chat and completions, Anthropic, Mistral, Cohere, and all that speak like them
		"max_completion_tokens", // OpenAI chat, newer
		"max_output_tokens",     // OpenAI responses
		"max_tokens_to_sample",  // Anthropic completions, also on Bedrock
		"max_new_tokens",        // Hugging Face
		"max_gen_len",           // Meta's Llama on Bedrock
		"maxTokens",             // AI21, and the SDKs that write it so
		"maxOutputTokens",       // SDKs that take generationConfig apart
		"num_predict",           // Ollama's options, without their object
		"n_predict",             // llama.cpp
		"max_length",            // Hugging Face, older
		"generationConfig.maxOutputTokens",
		"generation_config.max_output_tokens",     // Gemini and Vertex AI, in both spellings of protobuf's JSON
		"inferenceConfig.maxTokens",               // Bedrock Converse
		"inferenceConfig.max_new_tokens",          // Amazon Nova
		"textGenerationConfig.maxTokenCount",      // Amazon Titan
		"options.num_predict",                     // Ollama
		"parameters.max_new_tokens",               // Hugging Face TGI, SageMaker
		"parameters.max_tokens",                   // DashScope, watsonx
		"parameters.maxOutputTokens",              // Vertex AI's older models
		"additionalModelRequestFields.max_tokens", // Bedrock Converse, what it hands on
	}
}

// ChoiceFields returns the names under which the request bodies of providers carry the number of answers, for
// [Prompt.Choices], as [OutputCapFields] does.
func ChoiceFields() []string {
	return []string{
		"n",               // OpenAI and all that speak like it
		"best_of",         // OpenAI completions: so many are written, and paid, of which n are returned
		"num_generations", // Cohere
		"numResults",      // AI21
		"candidateCount",
		"candidate_count",
		"generationConfig.candidateCount",
		"generation_config.candidate_count", // Gemini and Vertex AI
		"parameters.candidateCount",         // Vertex AI's older models
		"parameters.best_of",                // Hugging Face TGI
	}
}

// Estimate returns what the call will use at most, as far as can be told: its prompt as uncached input, and the
// output that its cap allows, or, without one, the model's own maximum, which is 0 where it is not known. Where
// neither is known it reports false, and the usage has no output: the caller has to be asked for a cap.
func (p Prompt) Estimate(maxOutput int64) (u Usage, ok bool) {
	u.Input = min(max(0, p.Tokens), limit.MaxAmount)
	if u.Input == 0 && p.Characters > 0 {
		c := p.Characters
		u.Input = min((c-1)/charactersPerToken+1, limit.MaxAmount)
	}
	capped, output := len(p.OutputCaps) > 0, int64(0)
	for _, c := range p.OutputCaps {
		capped = capped && c >= 0
		output = max(output, c)
	}
	if !capped {
		if maxOutput <= 0 {
			return u, false
		}
		output = max(output, maxOutput)
	}
	choices := int64(1)
	for _, n := range p.Choices {
		choices = max(choices, n)
	}
	if output > math.MaxInt64/choices {
		output, choices = limit.MaxAmount, 1
	}
	u.Output = min(output*choices, limit.MaxAmount)
	return u, true
}
